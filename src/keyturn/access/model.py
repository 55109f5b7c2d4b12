"""What access keeps: workspaces, principals, roles and grants as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.access.caller import Resource
from keyturn.access.rules import INSTANCE

if TYPE_CHECKING:
    from keyturn.access.caller import Grant


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant; a cap of None does not restrict."""

    id: str
    name: str
    state: str
    keys_max: int | None
    keys_per_owner_max: int | None
    created_at: float
    revision: int
    default_environment: str = "production"
    """What the mount `secret` of the Vault-compatible surface stands for."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody or something that acts: a user, a service or an agent."""

    id: str
    workspace: str
    kind: str
    name: str
    state: str
    metadata: dict[str, str]
    created_at: float
    created_by: str
    revision: int


@dataclass(frozen=True, slots=True)
class Role:
    """A name that grants can be given to, for all of its members."""

    id: str
    workspace: str
    name: str
    description: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Member:
    """A principal's membership in a role."""

    principal: str
    assigned_at: float
    assigned_by: str


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A grant with its history; it is in force while `revoked_at` is None and its conditions hold."""

    grant: Grant
    state: str
    created_at: float
    created_by: str
    revoked_at: float | None
    role: str | None
    """The name of the role it is given to; None for a principal's own grant."""

    @property
    def id(self) -> str:
        """The grant's id."""
        return self.grant.id


def principal_resource(principal_id: str) -> Resource:
    """Name a principal as the object of an action."""
    return Resource(f"principal/{principal_id}")


def role_resource(name: str) -> Resource:
    """Name a role as the object of an action."""
    return Resource(f"role/{name}")


def grant_resource(grant_id: str) -> Resource:
    """Name a grant as the object of an action."""
    return Resource(f"grant/{grant_id}")


def own_workspace_resource(name: str) -> Resource:
    """Name the caller's own workspace, as those in it may know it."""
    return Resource(f"workspace/{name}")


def instance_workspace_resource(name: str) -> Resource:
    """Name any workspace, as those who run the installation may know it."""
    return Resource(f"{INSTANCE}/workspace/{name}")
