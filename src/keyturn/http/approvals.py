"""Routes of guards and approvals."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.vault.approvals import ApprovalService
from keyturn.wire.approvals import (
    ApprovalInfo,
    ApprovalPage,
    ApprovalState,
    CreateGuard,
    DecideApproval,
    GuardInfo,
    GuardPage,
    RequestApproval,
)
from keyturn.wire.keys import Empty

# What a request without any body asks for.
NOTHING = Empty()


@post("/api/v1/guards", operation_id="createGuard", tags=["approvals"])
async def create_guard(
    data: JSONBody[CreateGuard],
    credentials: Given[Credentials],
    approvals: Given[ApprovalService],
    idempotency: Given[str | None],
) -> GuardInfo:
    """Demand the approval of a second principal for actions on the paths of a pattern."""
    return await approvals.create_guard(credentials, data, idempotency=idempotency)


@get("/api/v1/guards", operation_id="listGuards", tags=["approvals"])
async def list_guards(
    credentials: Given[Credentials], approvals: Given[ApprovalService], page: Given[Page]
) -> GuardPage:
    """List guards, revoked ones too."""
    return await approvals.list_guards(credentials, cursor=page.cursor, limit=page.limit)


@get("/api/v1/guards/{guard_id:str}", operation_id="readGuard", tags=["approvals"])
async def read_guard(
    guard_id: FromPath[str], credentials: Given[Credentials], approvals: Given[ApprovalService]
) -> GuardInfo:
    """Show a guard."""
    return await approvals.show_guard(credentials, guard_id)


@post("/api/v1/guards/{guard_id:str}/revoke", operation_id="revokeGuard", tags=["approvals"], status_code=200)
async def revoke_guard(
    guard_id: FromPath[str],
    credentials: Given[Credentials],
    approvals: Given[ApprovalService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> GuardInfo:
    """Revoke a guard.

    Needs an approval of `guard.revoke` by a second principal.
    """
    return await approvals.revoke_guard(credentials, guard_id)


@post("/api/v1/approvals", operation_id="requestApproval", tags=["approvals"])
async def request_approval(
    data: JSONBody[RequestApproval], credentials: Given[Credentials], approvals: Given[ApprovalService]
) -> Tagged[ApprovalInfo]:
    """Ask for the approval of an action that a guard holds back.

    Asking again while it waits answers the same request.
    """
    asked = await approvals.request(credentials, data)
    return tagged(asked, asked.revision)


@get("/api/v1/approvals", operation_id="listApprovals", tags=["approvals"])
async def list_approvals(
    credentials: Given[Credentials],
    approvals: Given[ApprovalService],
    page: Given[Page],
    approval_state: Annotated[
        ApprovalState | None, QueryParameter(name="state", description="Only those that stand so.")
    ] = None,
) -> ApprovalPage:
    """List requests for approval: your own, and those that you may decide or read."""
    return await approvals.list(credentials, state=approval_state, cursor=page.cursor, limit=page.limit)


@get("/api/v1/approvals/{approval_id:str}", operation_id="readApproval", tags=["approvals"])
async def read_approval(
    approval_id: FromPath[str], credentials: Given[Credentials], approvals: Given[ApprovalService]
) -> Tagged[ApprovalInfo]:
    """Show a request for approval."""
    found = await approvals.show(credentials, approval_id)
    return tagged(found, found.revision)


@post("/api/v1/approvals/{approval_id:str}/decide", operation_id="decideApproval", tags=["approvals"], status_code=200)
async def decide_approval(
    approval_id: FromPath[str],
    data: JSONBody[DecideApproval],
    credentials: Given[Credentials],
    approvals: Given[ApprovalService],
) -> Tagged[ApprovalInfo]:
    """Approve or deny a request of another principal."""
    decided = await approvals.decide(credentials, approval_id, data)
    return tagged(decided, decided.revision)


ROUTES = (
    create_guard,
    list_guards,
    read_guard,
    revoke_guard,
    request_approval,
    list_approvals,
    read_approval,
    decide_approval,
)
