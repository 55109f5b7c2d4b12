"""Routes of the audit log: leaves, exports, checkpoints and proofs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from litestar import get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from keyturn.access.audit_keys import AuditKeyService
from keyturn.access.caller import Credentials
from keyturn.audit.service import AuditService
from keyturn.errors import InputError
from keyturn.http.edge import Given, Page
from keyturn.kernel.clock import parse_rfc3339
from keyturn.wire.audit import (
    AuditFilter,
    AuditLeafDetail,
    AuditPage,
    AuditPublicKey,
    CheckpointPage,
    ConsistencyProof,
    EraseLeaves,
    InclusionProof,
    LatestCheckpoint,
    LeavesErased,
    Outcome,
)
from keyturn.wire.keys import Empty

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXPORT_TYPE = "application/jsonl"
SIZE_MAX = 2**53

# What a request without any body asks for.
NOTHING = Empty()

_TIME = {"format": "date-time"}


@get("/api/v1/audit", operation_id="listAudit", tags=["audit"])
async def list_audit(
    credentials: Given[Credentials],
    audit: Given[AuditService],
    page: Given[Page],
    action: Annotated[
        str | None, QueryParameter(max_length=512, description="A pattern over actions, such as `key.*`.")
    ] = None,
    actor: Annotated[str | None, QueryParameter(max_length=256, description="The id of who acted.")] = None,
    resource: Annotated[
        str | None, QueryParameter(max_length=512, description="A pattern over resources, such as `key/orders/*`.")
    ] = None,
    resource_prefix: Annotated[
        str | None, QueryParameter(max_length=512, description="How the resource's name begins.")
    ] = None,
    outcome: Annotated[Outcome | None, QueryParameter(description="Only what ended so.")] = None,
    since: Annotated[
        str | None, QueryParameter(max_length=64, description="Only at or after this time.", schema_extra=_TIME)
    ] = None,
    until: Annotated[
        str | None, QueryParameter(max_length=64, description="Only before this time.", schema_extra=_TIME)
    ] = None,
) -> AuditPage:
    """List audit leaves, newest first.

    A page may be short and still have a next one.
    """
    wanted = AuditFilter(
        action=action,
        actor=actor,
        resource=resource,
        resource_prefix=resource_prefix,
        outcome=outcome,
        since=_moment(since, "since"),
        until=_moment(until, "until"),
    )
    return await audit.list(credentials, wanted, cursor=page.cursor, limit=page.limit)


@get("/api/v1/audit/leaves/{leaf_id:str}", operation_id="readAuditLeaf", tags=["audit"])
async def read_audit_leaf(
    leaf_id: FromPath[str], credentials: Given[Credentials], audit: Given[AuditService]
) -> AuditLeafDetail:
    """Show an audit leaf, its exact text and its place in the tree."""
    return await audit.show(credentials, leaf_id)


@get("/api/v1/audit/export", operation_id="exportAudit", tags=["audit"], media_type=EXPORT_TYPE)
async def export_audit(
    credentials: Given[Credentials],
    audit: Given[AuditService],
    draining: Given[asyncio.Event],
    since: Annotated[
        int, QueryParameter(ge=0, le=SIZE_MAX, description="Leave out this many leaves: the size of a checkpoint.")
    ] = 0,
) -> Stream:
    """Export the signed log as JSONL, for `keyturn audit verify`.

    It ends with the line `{"end":true}`; without that line it was cut off.
    """
    chunks = await audit.export(credentials, since=since)
    return Stream(_until(chunks, draining), media_type=EXPORT_TYPE)


@get("/api/v1/audit/checkpoint", operation_id="readAuditCheckpoint", tags=["audit"])
async def read_audit_checkpoint(credentials: Given[Credentials], audit: Given[AuditService]) -> LatestCheckpoint:
    """Show the newest signed checkpoint."""
    return await audit.latest(credentials)


@get("/api/v1/audit/checkpoints", operation_id="listAuditCheckpoints", tags=["audit"])
async def list_audit_checkpoints(
    credentials: Given[Credentials], audit: Given[AuditService], page: Given[Page]
) -> CheckpointPage:
    """List signed checkpoints, newest first."""
    return await audit.checkpoints(credentials, cursor=page.cursor, limit=page.limit)


@get("/api/v1/audit/proofs/inclusion", operation_id="proveAuditInclusion", tags=["audit"])
async def prove_audit_inclusion(
    credentials: Given[Credentials],
    audit: Given[AuditService],
    leaf: Annotated[str, QueryParameter(max_length=64, description="The id of a leaf.")],
    size: Annotated[
        int | None, QueryParameter(ge=1, le=SIZE_MAX, description="The size of the tree; by default the newest signed.")
    ] = None,
) -> InclusionProof:
    """Prove that a leaf is in the tree (RFC 9162 section 2.1.3)."""
    return await audit.inclusion(credentials, leaf, size)


@get("/api/v1/audit/proofs/consistency", operation_id="proveAuditConsistency", tags=["audit"])
async def prove_audit_consistency(
    credentials: Given[Credentials],
    audit: Given[AuditService],
    first: Annotated[int, QueryParameter(name="from", ge=0, le=SIZE_MAX, description="The size of the older tree.")],
    second: Annotated[
        int | None,
        QueryParameter(
            name="to", ge=0, le=SIZE_MAX, description="The size of the newer tree; by default the newest signed."
        ),
    ] = None,
) -> ConsistencyProof:
    """Prove that a tree begins with an older one (RFC 9162 section 2.1.4)."""
    return await audit.consistency(credentials, first, second)


@get("/api/v1/audit/public-key", operation_id="readAuditPublicKey", tags=["audit"])
async def read_audit_public_key(credentials: Given[Credentials], audit: Given[AuditService]) -> AuditPublicKey:
    """Show the key that checkpoints are verified with.

    Keep it where who runs the server cannot change it.
    """
    return await audit.public_key(credentials)


@post("/api/v1/audit/rotate-key", operation_id="rotateAuditKey", tags=["audit"])
async def rotate_audit_key(
    credentials: Given[Credentials],
    audit_keys: Given[AuditKeyService],
    idempotency: Given[str | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> AuditPublicKey:
    """Make a new key to sign checkpoints with.

    The next checkpoint is signed by both keys and hands over, so that who verifies with the key before can follow.
    The answer waits for it; `verifier_key` is the new key once it has taken over.
    """
    return await audit_keys.rotate(credentials, idempotency=idempotency)


@post("/api/v1/audit/retire-keys", operation_id="retireAuditKeys", tags=["audit"], status_code=200)
async def retire_audit_keys(
    credentials: Given[Credentials],
    audit_keys: Given[AuditKeyService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> AuditPublicKey:
    """Destroy the private halves of the keys that signed before.

    What they signed still verifies.
    """
    return await audit_keys.retire(credentials)


@post("/api/v1/audit/erase", operation_id="eraseAudit", tags=["audit"], status_code=200)
async def erase_audit(
    data: JSONBody[EraseLeaves], credentials: Given[Credentials], audit: Given[AuditService]
) -> LeavesErased:
    """Erase the content of audit leaves, for good.

    Their hashes stay, so that the log still verifies, and the erasure is a leaf of its own.
    """
    return await audit.erase(credentials, data)


async def _until(chunks: AsyncIterator[bytes], draining: asyncio.Event) -> AsyncIterator[bytes]:
    """Pass chunks on until the server stops; what was cut off is told by its missing end."""
    async for chunk in chunks:
        if draining.is_set():
            return
        yield chunk


def _moment(text: str | None, field: str) -> float | None:
    """Read a time from the query: litestar would take a bare number for one."""
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise InputError("expected a time like 2026-01-02T03:04:05Z", field=field) from None


ROUTES = (
    list_audit,
    read_audit_leaf,
    export_audit,
    read_audit_checkpoint,
    list_audit_checkpoints,
    prove_audit_inclusion,
    prove_audit_consistency,
    read_audit_public_key,
    rotate_audit_key,
    retire_audit_keys,
    erase_audit,
)
