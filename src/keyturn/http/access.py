"""Routes of workspaces, principals, roles, grants and decisions."""

from __future__ import annotations

from typing import Annotated

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.access.service import AccessService
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.wire.access import (
    AccessExplained,
    AccessState,
    AssignRole,
    CreateGrant,
    CreatePrincipal,
    CreateRole,
    CreateWorkspace,
    ExplainAccess,
    GrantEffect,
    GrantFilter,
    GrantInfo,
    GrantPage,
    GrantState,
    PrincipalEffect,
    PrincipalFilter,
    PrincipalInfo,
    PrincipalKind,
    PrincipalPage,
    RoleDetail,
    RoleEffect,
    RolePage,
    UpdatePrincipal,
    UpdateWorkspace,
    WhoAmI,
    WorkspaceCreated,
    WorkspaceEffect,
    WorkspaceInfo,
    WorkspacePage,
)
from keyturn.wire.keys import Empty

# What a request without any body asks for.
NOTHING = Empty()

# --- workspaces ------------------------------------------------------------------------------------------------------


@post("/api/v1/workspaces", operation_id="createWorkspace", tags=["workspaces"])
async def create_workspace(
    data: JSONBody[CreateWorkspace],
    credentials: Given[Credentials],
    access: Given[AccessService],
    idempotency: Given[str | None],
) -> Tagged[WorkspaceCreated]:
    """Create a workspace.

    Its administrator's management token is shown this once.
    """
    created = await access.workspaces.create(credentials, data, idempotency=idempotency)
    return tagged(created, created.revision)


@get("/api/v1/workspaces", operation_id="listWorkspaces", tags=["workspaces"])
async def list_workspaces(
    credentials: Given[Credentials], access: Given[AccessService], page: Given[Page]
) -> WorkspacePage:
    """List workspaces."""
    return await access.workspaces.list(credentials, cursor=page.cursor, limit=page.limit)


@get("/api/v1/workspaces/{name:str}", operation_id="readWorkspace", tags=["workspaces"])
async def read_workspace(
    name: FromPath[str], credentials: Given[Credentials], access: Given[AccessService]
) -> Tagged[WorkspaceInfo]:
    """Show a workspace."""
    found = await access.workspaces.read(credentials, name)
    return tagged(found, found.revision)


@patch("/api/v1/workspaces/{name:str}", operation_id="updateWorkspace", tags=["workspaces"])
async def update_workspace(
    name: FromPath[str],
    data: JSONBody[UpdateWorkspace],
    credentials: Given[Credentials],
    access: Given[AccessService],
    if_match: Given[int | None],
) -> Tagged[WorkspaceEffect]:
    """Change a workspace's caps or default environment, or disable or enable it."""
    changed = await access.workspaces.update(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


# --- principals ------------------------------------------------------------------------------------------------------


@post("/api/v1/principals", operation_id="createPrincipal", tags=["principals"])
async def create_principal(
    data: JSONBody[CreatePrincipal],
    credentials: Given[Credentials],
    access: Given[AccessService],
    idempotency: Given[str | None],
) -> Tagged[PrincipalInfo]:
    """Create a principal.

    It may do nothing until it is granted something.
    """
    created = await access.principals.create(credentials, data, idempotency=idempotency)
    return tagged(created, created.revision)


@get("/api/v1/principals", operation_id="listPrincipals", tags=["principals"])
async def list_principals(
    credentials: Given[Credentials],
    access: Given[AccessService],
    page: Given[Page],
    kind: Annotated[PrincipalKind | None, QueryParameter(description="Only this kind.")] = None,
    name: Annotated[str | None, QueryParameter(max_length=256, description="Only the one of this name.")] = None,
    principal_state: Annotated[
        AccessState | None, QueryParameter(name="state", description="Only those in this state.")
    ] = None,
) -> PrincipalPage:
    """List principals."""
    wanted = PrincipalFilter(kind=kind, name=name, state=principal_state)
    return await access.principals.list(credentials, wanted, cursor=page.cursor, limit=page.limit)


@get("/api/v1/principals/{principal_id:str}", operation_id="readPrincipal", tags=["principals"])
async def read_principal(
    principal_id: FromPath[str], credentials: Given[Credentials], access: Given[AccessService]
) -> Tagged[PrincipalInfo]:
    """Show a principal."""
    found = await access.principals.read(credentials, principal_id)
    return tagged(found, found.revision)


@patch("/api/v1/principals/{principal_id:str}", operation_id="updatePrincipal", tags=["principals"])
async def update_principal(
    principal_id: FromPath[str],
    data: JSONBody[UpdatePrincipal],
    credentials: Given[Credentials],
    access: Given[AccessService],
    if_match: Given[int | None],
) -> Tagged[PrincipalInfo]:
    """Change a principal's name or metadata."""
    changed = await access.principals.update(credentials, principal_id, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(
    "/api/v1/principals/{principal_id:str}/disable",
    operation_id="disablePrincipal",
    tags=["principals"],
    status_code=200,
)
async def disable_principal(
    principal_id: FromPath[str],
    credentials: Given[Credentials],
    access: Given[AccessService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- declared so that an unknown field is refused
) -> Tagged[PrincipalEffect]:
    """Disable a principal.

    Every one of its tokens is refused; reversible.
    """
    changed = await access.principals.disable(credentials, principal_id)
    return tagged(changed, changed.revision)


@post(
    "/api/v1/principals/{principal_id:str}/enable",
    operation_id="enablePrincipal",
    tags=["principals"],
    status_code=200,
)
async def enable_principal(
    principal_id: FromPath[str],
    credentials: Given[Credentials],
    access: Given[AccessService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- as above
) -> Tagged[PrincipalEffect]:
    """Enable a disabled principal."""
    changed = await access.principals.enable(credentials, principal_id)
    return tagged(changed, changed.revision)


# --- roles -----------------------------------------------------------------------------------------------------------


@post("/api/v1/roles", operation_id="createRole", tags=["roles"])
async def create_role(
    data: JSONBody[CreateRole],
    credentials: Given[Credentials],
    access: Given[AccessService],
    idempotency: Given[str | None],
) -> RoleDetail:
    """Create a role."""
    return await access.roles.create(credentials, data, idempotency=idempotency)


@get("/api/v1/roles", operation_id="listRoles", tags=["roles"])
async def list_roles(credentials: Given[Credentials], access: Given[AccessService], page: Given[Page]) -> RolePage:
    """List roles."""
    return await access.roles.list(credentials, cursor=page.cursor, limit=page.limit)


@get("/api/v1/roles/{name:str}", operation_id="readRole", tags=["roles"])
async def read_role(name: FromPath[str], credentials: Given[Credentials], access: Given[AccessService]) -> RoleDetail:
    """Show a role with its members."""
    return await access.roles.read(credentials, name)


@post("/api/v1/roles/{name:str}/members", operation_id="assignRole", tags=["roles"], status_code=200)
async def assign_role(
    name: FromPath[str],
    data: JSONBody[AssignRole],
    credentials: Given[Credentials],
    access: Given[AccessService],
) -> RoleDetail:
    """Make a principal a member of a role.

    The caller has to hold everything that the role holds.
    """
    return await access.roles.assign(credentials, name, data)


@post(
    "/api/v1/roles/{name:str}/members/{principal_id:str}/remove",
    operation_id="unassignRole",
    tags=["roles"],
    status_code=200,
)
async def unassign_role(
    name: FromPath[str],
    principal_id: FromPath[str],
    credentials: Given[Credentials],
    access: Given[AccessService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- as above
) -> RoleEffect:
    """End a principal's membership of a role."""
    return await access.roles.unassign(credentials, name, principal_id)


# --- grants ----------------------------------------------------------------------------------------------------------


@post("/api/v1/grants", operation_id="createGrant", tags=["grants"])
async def create_grant(
    data: JSONBody[CreateGrant],
    credentials: Given[Credentials],
    access: Given[AccessService],
    idempotency: Given[str | None],
) -> GrantInfo:
    """Grant actions on a resource pattern to a principal or a role.

    Nobody grants more than they hold themselves.
    """
    return await access.grants.create(credentials, data, idempotency=idempotency)


@get("/api/v1/grants", operation_id="listGrants", tags=["grants"])
async def list_grants(
    credentials: Given[Credentials],
    access: Given[AccessService],
    page: Given[Page],
    principal: Annotated[
        str | None, QueryParameter(max_length=64, description="Only those of this principal and of its roles.")
    ] = None,
    role: Annotated[
        str | None, QueryParameter(max_length=64, description="Only those of the role of this name.")
    ] = None,
    grant_state: Annotated[
        GrantState | None, QueryParameter(name="state", description="Only those in this state.")
    ] = None,
) -> GrantPage:
    """List grants, revoked ones too."""
    wanted = GrantFilter(principal=principal, role=role, state=grant_state)
    return await access.grants.list(credentials, wanted, cursor=page.cursor, limit=page.limit)


@get("/api/v1/grants/{grant_id:str}", operation_id="readGrant", tags=["grants"])
async def read_grant(
    grant_id: FromPath[str], credentials: Given[Credentials], access: Given[AccessService]
) -> GrantInfo:
    """Show a grant."""
    return await access.grants.read(credentials, grant_id)


@post("/api/v1/grants/{grant_id:str}/revoke", operation_id="revokeGrant", tags=["grants"], status_code=200)
async def revoke_grant(
    grant_id: FromPath[str],
    credentials: Given[Credentials],
    access: Given[AccessService],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- as above
) -> GrantEffect:
    """Revoke a grant, for good."""
    return await access.grants.revoke(credentials, grant_id)


# --- decisions -------------------------------------------------------------------------------------------------------


@post("/api/v1/access/explain", operation_id="explainAccess", tags=["grants"], status_code=200)
async def explain_access(
    data: JSONBody[ExplainAccess],
    credentials: Given[Credentials],
    access: Given[AccessService],
) -> AccessExplained:
    """Say whether a principal may do something, and why."""
    return await access.explain(credentials, data)


@get("/api/v1/whoami", operation_id="whoami", tags=["grants"])
async def whoami(credentials: Given[Credentials], access: Given[AccessService]) -> WhoAmI:
    """Say who the token belongs to and what it may do."""
    return await access.whoami(credentials)


ROUTES = (
    create_workspace,
    list_workspaces,
    read_workspace,
    update_workspace,
    create_principal,
    list_principals,
    read_principal,
    update_principal,
    disable_principal,
    enable_principal,
    create_role,
    list_roles,
    read_role,
    assign_role,
    unassign_role,
    create_grant,
    list_grants,
    read_grant,
    revoke_grant,
    explain_access,
    whoami,
)
