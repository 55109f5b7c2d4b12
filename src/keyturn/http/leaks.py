"""Routes of leaks: matching, findings, reported scans, and policies."""

from __future__ import annotations

from typing import Annotated

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.leaks.policies import LeakPolicyService
from keyturn.leaks.service import LeakService
from keyturn.wire.certainty import Certainty
from keyturn.wire.keys import Empty
from keyturn.wire.leaks import (
    BODY_BYTES_MAX,
    CreateLeakPolicy,
    DecideFinding,
    FindingDetail,
    FindingFilter,
    FindingPage,
    FindingState,
    LeakMatches,
    LeakPolicyInfo,
    LeakPolicyPage,
    LeakScanPage,
    MatchLeaks,
    ReportFindings,
    ScanReported,
    UpdateLeakPolicy,
)

# What a request without any body asks for.
NOTHING = Empty()

_FINDINGS = "/api/v1/findings"
_POLICIES = "/api/v1/leak-policies"


@post(
    "/api/v1/leaks/match",
    operation_id="matchLeaks",
    tags=["leaks"],
    status_code=200,
    request_max_body_size=BODY_BYTES_MAX,
)
async def match_leaks(
    data: JSONBody[MatchLeaks], credentials: Given[Credentials], leaks: Given[LeakService]
) -> LeakMatches:
    """Tell which values are issued keys or held secrets, by their digests."""
    return await leaks.match(credentials, data)


@post(_FINDINGS, operation_id="reportFindings", tags=["leaks"], request_max_body_size=BODY_BYTES_MAX)
async def report_findings(
    data: JSONBody[ReportFindings], credentials: Given[Credentials], leaks: Given[LeakService]
) -> ScanReported:
    """Report what a scan found."""
    return await leaks.report(credentials, data)


@get(_FINDINGS, operation_id="listFindings", tags=["leaks"])
async def list_findings(
    credentials: Given[Credentials],
    leaks: Given[LeakService],
    page: Given[Page],
    finding_state: Annotated[
        FindingState | None, QueryParameter(name="state", description="Only those that stand so.")
    ] = None,
    certainty: Annotated[Certainty | None, QueryParameter(description="Only those that are so sure.")] = None,
    key: Annotated[str | None, QueryParameter(max_length=64)] = None,
    secret: Annotated[str | None, QueryParameter(max_length=512)] = None,
    owner: Annotated[str | None, QueryParameter(max_length=256)] = None,
    source: Annotated[str | None, QueryParameter(max_length=256)] = None,
    keyspace: Annotated[str | None, QueryParameter(max_length=64)] = None,
) -> FindingPage:
    """List findings, oldest first."""
    wanted = FindingFilter(
        state=finding_state, certainty=certainty, key=key, secret=secret, owner=owner, source=source, keyspace=keyspace
    )
    return await leaks.list(credentials, wanted, cursor=page.cursor, limit=page.limit)


@get(_FINDINGS + "/{finding_id:str}", operation_id="readFinding", tags=["leaks"])
async def read_finding(
    finding_id: FromPath[str], credentials: Given[Credentials], leaks: Given[LeakService]
) -> Tagged[FindingDetail]:
    """Show a finding with its places and its history."""
    found = await leaks.show(credentials, finding_id)
    return tagged(found, found.finding.revision)


@post(_FINDINGS + "/{finding_id:str}/decide", operation_id="decideFinding", tags=["leaks"], status_code=200)
async def decide_finding(
    finding_id: FromPath[str],
    data: JSONBody[DecideFinding],
    credentials: Given[Credentials],
    leaks: Given[LeakService],
    if_match: Given[int | None],
) -> Tagged[FindingDetail]:
    """Confirm, dismiss, accept, reopen or close a finding."""
    found = await leaks.decide(credentials, finding_id, data, if_match=if_match)
    return tagged(found, found.finding.revision)


@get("/api/v1/leak-scans", operation_id="listLeakScans", tags=["leaks"])
async def list_leak_scans(
    credentials: Given[Credentials],
    leaks: Given[LeakService],
    page: Given[Page],
    source: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> LeakScanPage:
    """List the scans that were reported, oldest first."""
    return await leaks.list_scans(credentials, source=source, cursor=page.cursor, limit=page.limit)


@post(_POLICIES, operation_id="createLeakPolicy", tags=["leaks"])
async def create_policy(
    data: JSONBody[CreateLeakPolicy],
    credentials: Given[Credentials],
    leak_policies: Given[LeakPolicyService],
    idempotency: Given[str | None],
) -> Tagged[LeakPolicyInfo]:
    """Say what is done about a leak."""
    made = await leak_policies.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_POLICIES, operation_id="listLeakPolicies", tags=["leaks"])
async def list_policies(
    credentials: Given[Credentials], leak_policies: Given[LeakPolicyService], page: Given[Page]
) -> LeakPolicyPage:
    """List policies, oldest first."""
    return await leak_policies.list(credentials, cursor=page.cursor, limit=page.limit)


@get(_POLICIES + "/{name:str}", operation_id="readLeakPolicy", tags=["leaks"])
async def read_policy(
    name: FromPath[str], credentials: Given[Credentials], leak_policies: Given[LeakPolicyService]
) -> Tagged[LeakPolicyInfo]:
    """Show a policy."""
    found = await leak_policies.show(credentials, name)
    return tagged(found, found.revision)


@patch(_POLICIES + "/{name:str}", operation_id="updateLeakPolicy", tags=["leaks"])
async def update_policy(
    name: FromPath[str],
    data: JSONBody[UpdateLeakPolicy],
    credentials: Given[Credentials],
    leak_policies: Given[LeakPolicyService],
    if_match: Given[int | None],
) -> Tagged[LeakPolicyInfo]:
    """Change a policy, which is the caller's from then on."""
    changed = await leak_policies.update(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_POLICIES + "/{name:str}/delete", operation_id="deleteLeakPolicy", tags=["leaks"], status_code=200)
async def delete_policy(
    name: FromPath[str],
    credentials: Given[Credentials],
    leak_policies: Given[LeakPolicyService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[LeakPolicyInfo]:
    """Delete a policy; its name is free again."""
    deleted = await leak_policies.delete(credentials, name, if_match=if_match)
    return tagged(deleted, deleted.revision)


ROUTES = (
    match_leaks,
    report_findings,
    list_findings,
    read_finding,
    decide_finding,
    list_leak_scans,
    create_policy,
    list_policies,
    read_policy,
    update_policy,
    delete_policy,
)
