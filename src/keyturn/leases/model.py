"""Sources, roles and leases as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from keyturn.wire.leases import LeaseState

ACTIVE: Final = "active"


@dataclass(frozen=True, slots=True)
class Source:
    """A system that accounts are made in; what is secret of its connection is sealed elsewhere."""

    id: str
    workspace: str
    name: str
    kind: str
    description: str
    connection: dict[str, Any]
    secrets: tuple[str, ...]
    state: str
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return source_resource(self.name)


@dataclass(frozen=True, slots=True)
class Role:
    """What accounts of a source may do, for how long, and how many there may be."""

    id: str
    workspace: str
    source: str
    source_name: str
    name: str
    config: dict[str, Any]
    ttl_seconds: int
    max_ttl_seconds: int
    leases_max: int
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return role_resource(self.source_name, self.name)


@dataclass(frozen=True, slots=True)
class Lease:
    """One account that was made on demand, or is being made."""

    id: str
    workspace: str
    path: str
    source: str
    role: str
    account: str
    state: LeaseState
    principal: str
    subject: str
    login_role: str | None
    ttl_seconds: int
    created_at: float
    expires_at: float
    max_expires_at: float
    due_at: float | None
    claimed_until: float
    attempts: int
    last_error: str | None
    revoke_reason: str | None
    revoked_at: float | None
    revision: int

    @property
    def source_name(self) -> str:
        """The name its source had when it was made."""
        return self.path.split("/")[0]

    @property
    def role_name(self) -> str:
        """The name its role had when it was made."""
        return self.path.split("/")[2]

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return lease_resource(self.path)


def source_resource(name: str) -> str:
    """Name a source as grants do."""
    return f"credential_source/{name}"


def role_resource(source: str, name: str) -> str:
    """Name a role as grants do."""
    return f"credential_role/{source}/{name}"


def lease_resource(path: str) -> str:
    """Name a lease as grants do, by its path."""
    source, _, role, lease_id = path.split("/")
    return f"lease/{source}/{role}/{lease_id}"


def lease_path(source: str, role: str, lease_id: str) -> str:
    """Build the path of a lease."""
    return f"{source}/creds/{role}/{lease_id}"
