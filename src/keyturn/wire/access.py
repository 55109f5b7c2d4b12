"""Access: the requests and responses of workspaces, principals, roles, grants and decisions.

Times in a response are RFC 3339 in UTC, times in a request are RFC 3339 with an offset.
In an update a field that is left out stays as it is, and `null` clears it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.actions import Action
from keyturn.wire.keys import Description, EnvironmentName, Line, Metadata, Moment

CAP_MAX = 100_000_000
PATTERNS_MAX = 64

_DNS_LABEL = r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?!\n)$"

WorkspaceName = Annotated[str, Meta(min_length=1, max_length=63, pattern=_DNS_LABEL)]
RoleName = Annotated[str, Meta(min_length=1, max_length=63, pattern=_DNS_LABEL)]
PrincipalKind = Literal["user", "service", "agent"]
AccessState = Literal["active", "disabled"]
GrantState = Literal["active", "revoked"]
Cap = Annotated[int, Meta(ge=0, le=CAP_MAX)]
DefaultEnvironment = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^(?!(auth|cubbyhole|identity|secret|sys)$)[a-z0-9][a-z0-9_-]*(?!\n)$",
    ),
]
"""Reserved are the names that mean something else on the Vault-compatible surface."""
Pattern = Annotated[str, Meta(min_length=1, max_length=512)]
Address = Annotated[str, Meta(min_length=2, max_length=64)]
Reference = Annotated[str, Meta(min_length=1, max_length=64)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


# --- workspaces --------------------------------------------------------------------------------------------------


class CreateWorkspace(_Strict, frozen=True, kw_only=True):
    """Create a tenant, with a principal that administers it and a management token for that principal.

    `keys_max` and `keys_per_owner_max` bound how many keys that are not revoked it may hold; `null` does not.
    """

    name: WorkspaceName
    keys_max: Cap | None = None
    keys_per_owner_max: Cap | None = None
    admin: Line = "admin"


class UpdateWorkspace(_Strict, frozen=True, kw_only=True):
    """Change a workspace's caps, or disable it: nothing in a disabled workspace is authorised any more.

    `default_environment` is what the mount `secret` of the Vault-compatible surface stands for.
    """

    keys_max: Cap | UnsetType | None = UNSET
    keys_per_owner_max: Cap | UnsetType | None = UNSET
    default_environment: DefaultEnvironment | UnsetType = UNSET
    state: AccessState | UnsetType = UNSET


class WorkspaceInfo(_Answer, frozen=True, kw_only=True):
    """A workspace."""

    id: str
    name: str
    state: str
    keys_max: int | None
    keys_per_owner_max: int | None
    default_environment: str
    created_at: str
    revision: int


class WorkspaceCreated(WorkspaceInfo, frozen=True, kw_only=True):
    """A new workspace; `token` is shown this once, and a replay after 10 minutes has `null` there."""

    principal: str
    token_id: str | None
    token: str | None

    def __repr__(self) -> str:
        return f"WorkspaceCreated(name={self.name!r}, [redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name)]


class WorkspaceEffect(WorkspaceInfo, frozen=True, kw_only=True):
    """A changed workspace, and how far the change has spread (see KeyEffect)."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class WorkspacePage(_Answer, frozen=True, kw_only=True):
    """A page of workspaces, oldest first."""

    items: tuple[WorkspaceInfo, ...]
    next_cursor: str | None


# --- principals --------------------------------------------------------------------------------------------------


class CreatePrincipal(_Strict, frozen=True, kw_only=True):
    """Create somebody or something that can act; it may do nothing until it is granted something."""

    kind: PrincipalKind
    name: Line
    metadata: Metadata = {}


class UpdatePrincipal(_Strict, frozen=True, kw_only=True):
    """Change what is known about a principal; its id and kind never change."""

    name: Line | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class PrincipalInfo(_Answer, frozen=True, kw_only=True):
    """A principal."""

    id: str
    kind: str
    name: str
    state: str
    metadata: dict[str, str]
    created_at: str
    created_by: str
    revision: int


class PrincipalEffect(PrincipalInfo, frozen=True, kw_only=True):
    """A disabled or enabled principal, and how far the change has spread (see KeyEffect)."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class PrincipalPage(_Answer, frozen=True, kw_only=True):
    """A page of principals, oldest first."""

    items: tuple[PrincipalInfo, ...]
    next_cursor: str | None


class PrincipalFilter(_Strict, frozen=True, kw_only=True):
    """Which principals to list; every filter given must hold."""

    kind: PrincipalKind | None = None
    name: str | None = None
    state: AccessState | None = None


# --- roles -------------------------------------------------------------------------------------------------------


class CreateRole(_Strict, frozen=True, kw_only=True):
    """Create a role: what is granted to it, all of its members may do."""

    name: RoleName
    description: Description = ""


class AssignRole(_Strict, frozen=True, kw_only=True):
    """Make a principal a member of a role."""

    principal: Reference


class MemberInfo(_Answer, frozen=True, kw_only=True):
    """A member of a role."""

    principal: str
    assigned_at: str
    assigned_by: str


class RoleInfo(_Answer, frozen=True, kw_only=True):
    """A role."""

    id: str
    name: str
    description: str
    created_at: str


class RoleDetail(RoleInfo, frozen=True, kw_only=True):
    """A role with those of its members that the caller may know of."""

    members: tuple[MemberInfo, ...]


class RoleEffect(RoleDetail, frozen=True, kw_only=True):
    """A role with changed members, and how far the change has spread (see KeyEffect)."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class RolePage(_Answer, frozen=True, kw_only=True):
    """A page of roles, oldest first."""

    items: tuple[RoleInfo, ...]
    next_cursor: str | None


# --- grants ------------------------------------------------------------------------------------------------------


class GrantConditions(_Strict, frozen=True, kw_only=True):
    """When a grant applies; every condition given must hold, and one whose input is absent does not.

    `environments` lists the environments of resources, `cidrs` the networks callers may come from.
    """

    environments: Annotated[tuple[EnvironmentName, ...], Meta(max_length=32)] = ()
    cidrs: Annotated[tuple[Address, ...], Meta(max_length=PATTERNS_MAX)] = ()
    not_before: Moment | None = None
    not_after: Moment | None = None


class CreateGrant(_Strict, frozen=True, kw_only=True):
    """Grant actions on a resource pattern to a principal or to a role (its name), one of the two.

    Nobody grants more than they hold themselves.
    """

    actions: Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=PATTERNS_MAX)]
    resource: Pattern
    principal: Reference | None = None
    role: RoleName | None = None
    conditions: GrantConditions = GrantConditions()


class ConditionsInfo(_Answer, frozen=True, kw_only=True):
    """The conditions of a grant; `unknown` ones were made by a newer release and never hold in this one."""

    environments: tuple[str, ...]
    cidrs: tuple[str, ...]
    not_before: str | None
    not_after: str | None
    unknown: bool


class GrantInfo(_Answer, frozen=True, kw_only=True):
    """A grant, to a principal or to a role."""

    id: str
    principal: str | None
    role: str | None
    actions: tuple[str, ...]
    resource: str
    conditions: ConditionsInfo
    state: str
    created_at: str
    created_by: str
    revoked_at: str | None


class GrantEffect(GrantInfo, frozen=True, kw_only=True):
    """A revoked grant, and how far the change has spread (see KeyEffect)."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class GrantPage(_Answer, frozen=True, kw_only=True):
    """A page of grants, oldest first."""

    items: tuple[GrantInfo, ...]
    next_cursor: str | None


class GrantFilter(_Strict, frozen=True, kw_only=True):
    """Which grants to list; `principal` takes in those of its roles, `role` is a name."""

    principal: str | None = None
    role: str | None = None
    state: GrantState | None = None


# --- decisions ---------------------------------------------------------------------------------------------------


class ExplainAccess(_Strict, frozen=True, kw_only=True):
    """Ask whether a principal may do an action to a resource, and why; `principal` null means the caller itself.

    `environment` is the resource's, `ip` the address a call would come from, `at` the time it would be made.
    """

    action: Action
    resource: Pattern
    principal: Reference | None = None
    environment: EnvironmentName | None = None
    ip: Address | None = None
    at: Moment | None = None


class ConsideredGrant(_Answer, frozen=True, kw_only=True):
    """One grant (or `token`, the bounds of the caller's own) as it bore on the decision."""

    source: str
    subject: str
    applies: bool
    reason: str


class AccessExplained(_Answer, frozen=True, kw_only=True):
    """A decision with everything that was considered."""

    allowed: bool
    reason: str
    principal: str
    action: str
    resource: str
    considered: tuple[ConsideredGrant, ...]


class HeldGrant(_Answer, frozen=True, kw_only=True):
    """A grant that the caller holds, itself or through a role."""

    id: str
    subject: str
    actions: tuple[str, ...]
    resource: str
    conditions: ConditionsInfo


class WhoAmI(_Answer, frozen=True, kw_only=True):
    """The caller, as its token was proven."""

    principal: str
    kind: str
    name: str
    workspace: str
    workspace_name: str
    token_id: str | None
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    grants: tuple[HeldGrant, ...]
