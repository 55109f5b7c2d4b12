"""Routes of credentials made on demand: sources, their roles, and leases."""

from __future__ import annotations

from typing import Annotated

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.leases.service import LeaseService
from keyturn.leases.sources import SourceService
from keyturn.wire.keys import Empty
from keyturn.wire.leases import (
    CreateCredentialRole,
    CreateLease,
    CreateSource,
    CredentialRoleInfo,
    CredentialRolePage,
    LeaseCreated,
    LeaseInfo,
    LeasePage,
    LeasesRevoked,
    LeaseState,
    RenewLease,
    ResolveLease,
    RevokeOwner,
    RevokePrefix,
    SourceCheck,
    SourceInfo,
    SourcePage,
    UpdateCredentialRole,
    UpdateSource,
)

# What a request without any body asks for.
NOTHING = Empty()
LEASE = CreateLease()
RENEW = RenewLease()

_SOURCES = "/api/v1/credential-sources"


@post(_SOURCES, operation_id="createCredentialSource", tags=["leases"])
async def create_source(
    data: JSONBody[CreateSource],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    idempotency: Given[str | None],
) -> Tagged[SourceInfo]:
    """Create a source of credentials, and connect to it unless `check` is false."""
    made = await credential_sources.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_SOURCES, operation_id="listCredentialSources", tags=["leases"])
async def list_sources(
    credentials: Given[Credentials], credential_sources: Given[SourceService], page: Given[Page]
) -> SourcePage:
    """List sources, oldest first."""
    return await credential_sources.list(credentials, cursor=page.cursor, limit=page.limit)


@get(_SOURCES + "/{source:str}", operation_id="readCredentialSource", tags=["leases"])
async def read_source(
    source: FromPath[str], credentials: Given[Credentials], credential_sources: Given[SourceService]
) -> Tagged[SourceInfo]:
    """Show a source without what is secret of it."""
    found = await credential_sources.show(credentials, source)
    return tagged(found, found.revision)


@patch(_SOURCES + "/{source:str}", operation_id="updateCredentialSource", tags=["leases"])
async def update_source(
    source: FromPath[str],
    data: JSONBody[UpdateSource],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    if_match: Given[int | None],
) -> Tagged[SourceInfo]:
    """Change how a source is reached, or its description."""
    changed = await credential_sources.update(credentials, source, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_SOURCES + "/{source:str}/check", operation_id="checkCredentialSource", tags=["leases"], status_code=200)
async def check_source(
    source: FromPath[str],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> SourceCheck:
    """Connect to a source and say what came of it."""
    return await credential_sources.check(credentials, source)


@post(_SOURCES + "/{source:str}/delete", operation_id="deleteCredentialSource", tags=["leases"], status_code=200)
async def delete_source(
    source: FromPath[str],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[SourceInfo]:
    """Delete a source whose leases are over."""
    changed = await credential_sources.delete(credentials, source, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_SOURCES + "/{source:str}/roles", operation_id="createCredentialRole", tags=["leases"])
async def create_role(
    source: FromPath[str],
    data: JSONBody[CreateCredentialRole],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    idempotency: Given[str | None],
) -> Tagged[CredentialRoleInfo]:
    """Create a role of a source: what its accounts may do, and for how long."""
    made = await credential_sources.create_role(credentials, source, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_SOURCES + "/{source:str}/roles", operation_id="listCredentialRoles", tags=["leases"])
async def list_roles(
    source: FromPath[str],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    page: Given[Page],
) -> CredentialRolePage:
    """List the roles of a source, oldest first."""
    return await credential_sources.list_roles(credentials, source, cursor=page.cursor, limit=page.limit)


@get(_SOURCES + "/{source:str}/roles/{role:str}", operation_id="readCredentialRole", tags=["leases"])
async def read_role(
    source: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
) -> Tagged[CredentialRoleInfo]:
    """Show a role."""
    found = await credential_sources.show_role(credentials, source, role)
    return tagged(found, found.revision)


@patch(_SOURCES + "/{source:str}/roles/{role:str}", operation_id="updateCredentialRole", tags=["leases"])
async def update_role(
    source: FromPath[str],
    role: FromPath[str],
    data: JSONBody[UpdateCredentialRole],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    if_match: Given[int | None],
) -> Tagged[CredentialRoleInfo]:
    """Change a role; leases that were made keep their times."""
    changed = await credential_sources.update_role(credentials, source, role, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(
    _SOURCES + "/{source:str}/roles/{role:str}/delete",
    operation_id="deleteCredentialRole",
    tags=["leases"],
    status_code=200,
)
async def delete_role(
    source: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    credential_sources: Given[SourceService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[CredentialRoleInfo]:
    """Delete a role; leases that were made live on until they end."""
    changed = await credential_sources.delete_role(credentials, source, role, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_SOURCES + "/{source:str}/roles/{role:str}/leases", operation_id="createLease", tags=["leases"])
async def create_lease(
    source: FromPath[str],
    role: FromPath[str],
    credentials: Given[Credentials],
    leases: Given[LeaseService],
    data: JSONBody[CreateLease] = LEASE,
) -> LeaseCreated:
    """Make an account, and answer its credential once."""
    return await leases.create(credentials, source, role, ttl_seconds=data.ttl_seconds)


@get("/api/v1/leases", operation_id="listLeases", tags=["leases"])
async def list_leases(
    credentials: Given[Credentials],
    leases: Given[LeaseService],
    page: Given[Page],
    lease_state: Annotated[
        LeaseState | None, QueryParameter(name="state", description="Only those that stand so.")
    ] = None,
    prefix: Annotated[str, QueryParameter(max_length=200, description="Only those under this path.")] = "",
    principal: Annotated[str | None, QueryParameter(max_length=64, description="Only those of this principal.")] = None,
) -> LeasePage:
    """List leases, oldest first; `state=irrevocable` are those that a person has to look after."""
    return await leases.list(
        credentials, state=lease_state, prefix=prefix, principal=principal, cursor=page.cursor, limit=page.limit
    )


@get("/api/v1/leases/{lease_id:str}", operation_id="readLease", tags=["leases"])
async def read_lease(
    lease_id: FromPath[str], credentials: Given[Credentials], leases: Given[LeaseService]
) -> LeaseInfo:
    """Show a lease."""
    return await leases.lookup(credentials, lease_id)


@post("/api/v1/leases/{lease_id:str}/renew", operation_id="renewLease", tags=["leases"], status_code=200)
async def renew_lease(
    lease_id: FromPath[str],
    credentials: Given[Credentials],
    leases: Given[LeaseService],
    data: JSONBody[RenewLease] = RENEW,
) -> LeaseInfo:
    """Let a lease end so long after now, within its most."""
    return await leases.renew(credentials, lease_id, data.increment_seconds)


@post("/api/v1/leases/{lease_id:str}/revoke", operation_id="revokeLease", tags=["leases"], status_code=200)
async def revoke_lease(
    lease_id: FromPath[str],
    credentials: Given[Credentials],
    leases: Given[LeaseService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> LeaseInfo:
    """End a lease and drop its account; the answer says whether it is gone."""
    return await leases.revoke(credentials, lease_id)


@post("/api/v1/leases/{lease_id:str}/retry", operation_id="retryLease", tags=["leases"], status_code=200)
async def retry_lease(
    lease_id: FromPath[str],
    credentials: Given[Credentials],
    leases: Given[LeaseService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> LeaseInfo:
    """Try again to drop the account of an irrevocable lease."""
    return await leases.retry(credentials, lease_id)


@post("/api/v1/leases/{lease_id:str}/resolve", operation_id="resolveLease", tags=["leases"], status_code=200)
async def resolve_lease(
    lease_id: FromPath[str],
    data: JSONBody[ResolveLease],
    credentials: Given[Credentials],
    leases: Given[LeaseService],
) -> LeaseInfo:
    """State that the account of an irrevocable lease is gone."""
    return await leases.resolve(credentials, lease_id, data.reason)


@post("/api/v1/leases/revoke-prefix", operation_id="revokeLeasesUnder", tags=["leases"], status_code=202)
async def revoke_prefix(
    data: JSONBody[RevokePrefix], credentials: Given[Credentials], leases: Given[LeaseService]
) -> LeasesRevoked:
    """End every lease under a path; their accounts are dropped from now on."""
    return await leases.revoke_prefix(credentials, data.prefix)


@post("/api/v1/leases/revoke-owner", operation_id="revokeLeasesOf", tags=["leases"], status_code=202)
async def revoke_owner(
    data: JSONBody[RevokeOwner], credentials: Given[Credentials], leases: Given[LeaseService]
) -> LeasesRevoked:
    """End every lease of a principal; their accounts are dropped from now on."""
    return await leases.revoke_by_owner(credentials, data.principal, data.subject)


ROUTES = (
    create_source,
    list_sources,
    read_source,
    update_source,
    check_source,
    delete_source,
    create_role,
    list_roles,
    read_role,
    update_role,
    delete_role,
    create_lease,
    list_leases,
    read_lease,
    renew_lease,
    revoke_lease,
    retry_lease,
    resolve_lease,
    revoke_prefix,
    revoke_owner,
)
