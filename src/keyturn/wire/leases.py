"""Credentials made on demand: the requests and responses of `/api/v1/credential-sources` and `/api/v1/leases`.

A lease is named by its id, or by its path `<source>/creds/<role>/<id>`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.keys import Description, Line

LEASE_SECONDS_MAX: Final = 2_764_800
"""32 days."""
TTL_SECONDS_DEFAULT: Final = 3600
MAX_TTL_SECONDS_DEFAULT: Final = 86_400
LEASES_MAX_DEFAULT: Final = 1000
REVOKED_AT_ONCE_MAX: Final = 10_000
"""How many leases one request over a prefix or an owner ends; `more` says that it has to be sent again."""

SourceName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
CredentialRoleName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
ConnectorKind = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z][a-z0-9-]*(?!\n)$")]
_Setting = Annotated[str, Meta(max_length=16_384, pattern=r"^[^\x00]*$")] | int | bool
Connection = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=64)], _Setting], Meta(max_length=32)]
"""How a source is reached, by the names its kind knows; what is secret of it is sealed and never shown."""
RoleConfig = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=64)], Any], Meta(max_length=16)]
"""What an account may do, by the names the kind of the source knows, such as `creation`."""
LeaseSeconds = Annotated[int, Meta(ge=1, le=LEASE_SECONDS_MAX)]
LeasesMax = Annotated[int, Meta(ge=1, le=1_000_000)]
LeasePrefix = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_/-]+(?!\n)$")]


class LeaseState(StrEnum):
    """Where a lease stands."""

    INTENT = "intent"
    """Written down; its account is being created."""
    ACTIVE = "active"
    REVOKING = "revoking"
    """Over; its account is to be dropped, or tried again."""
    ABANDONED = "abandoned"
    """Its creation was given up; whatever came of it is to be dropped."""
    LINGERING = "lingering"
    """As abandoned, and dropped; dropped again when nothing that was asked of the provider can arrive any more."""
    REVOKED = "revoked"
    FAILED = "failed"
    """It never became a lease, and no account is left of it."""
    IRREVOCABLE = "irrevocable"
    """Every attempt to drop its account failed; a person has to act."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class CreateSource(_Strict, frozen=True, kw_only=True):
    """Create a source: a system that accounts are made in."""

    name: SourceName
    kind: ConnectorKind
    connection: Connection
    description: Description = ""
    check: bool = True
    """Connect first, and refuse a source that does not answer."""

    def __repr__(self) -> str:
        return f"CreateSource(name={self.name!r}, kind={self.kind!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class UpdateSource(_Strict, frozen=True, kw_only=True):
    """Change a source; `connection` takes the place of all of it but secrets that it leaves out."""

    connection: Connection | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    check: bool = True

    def __repr__(self) -> str:
        return "UpdateSource([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class CreateCredentialRole(_Strict, frozen=True, kw_only=True):
    """Create a role: what accounts of a source may do, for how long, and how many there may be."""

    name: CredentialRoleName
    config: RoleConfig
    ttl_seconds: LeaseSeconds = TTL_SECONDS_DEFAULT
    max_ttl_seconds: LeaseSeconds = MAX_TTL_SECONDS_DEFAULT
    leases_max: LeasesMax = LEASES_MAX_DEFAULT


class UpdateCredentialRole(_Strict, frozen=True, kw_only=True):
    """Change a role; leases that were made stay as they are."""

    config: RoleConfig | UnsetType = UNSET
    ttl_seconds: LeaseSeconds | UnsetType = UNSET
    max_ttl_seconds: LeaseSeconds | UnsetType = UNSET
    leases_max: LeasesMax | UnsetType = UNSET


class CreateLease(_Strict, frozen=True, kw_only=True):
    """Make a credential; it lives for the role's time unless another is asked for, and never longer than its most."""

    ttl_seconds: LeaseSeconds | None = None


class RenewLease(_Strict, frozen=True, kw_only=True):
    """Let a lease end so long after now; what passes its most is cut."""

    increment_seconds: LeaseSeconds | None = None


class RevokePrefix(_Strict, frozen=True, kw_only=True):
    """End the leases under `<source>`, `<source>/creds/<role>` or one lease's path."""

    prefix: LeasePrefix


class RevokeOwner(_Strict, frozen=True, kw_only=True):
    """End the leases of a principal, or of one subject that logged in as it."""

    principal: Annotated[str, Meta(min_length=1, max_length=64)]
    subject: Annotated[str, Meta(min_length=1, max_length=512)] | None = None


class ResolveLease(_Strict, frozen=True, kw_only=True):
    """State that the account of an irrevocable lease is gone, and how one knows."""

    reason: Line


class SourceInfo(_Answer, frozen=True, kw_only=True):
    """A source without what is secret of it; `secrets` names what is kept."""

    id: str
    name: str
    kind: str
    description: str
    connection: dict[str, Any]
    secrets: tuple[str, ...]
    renewable: bool
    revocable: bool
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class SourcePage(_Answer, frozen=True, kw_only=True):
    """A page of sources."""

    items: tuple[SourceInfo, ...]
    next_cursor: str | None


class SourceCheck(_Answer, frozen=True, kw_only=True):
    """Whether a source answered, and what it said when it did not."""

    reachable: bool
    error: str | None


class CredentialRoleInfo(_Answer, frozen=True, kw_only=True):
    """A role."""

    id: str
    source: str
    name: str
    config: dict[str, Any]
    ttl_seconds: int
    max_ttl_seconds: int
    leases_max: int
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class CredentialRolePage(_Answer, frozen=True, kw_only=True):
    """A page of roles."""

    items: tuple[CredentialRoleInfo, ...]
    next_cursor: str | None


class LeaseInfo(_Answer, frozen=True, kw_only=True):
    """A lease without its credential, which is kept nowhere."""

    id: str
    lease_id: str
    """Its path, `<source>/creds/<role>/<id>`."""
    source: str
    role: str
    account: str
    state: LeaseState
    principal: str
    subject: str
    ttl_seconds: int
    """What is left of it now, whole seconds; 0 when it is over."""
    renewable: bool
    revocable: bool
    created_at: str
    expires_at: str
    max_expires_at: str
    attempts: int
    next_attempt_at: str | None
    last_error: str | None
    revoke_reason: str | None
    revoked_at: str | None
    revision: int


class LeasePage(_Answer, frozen=True, kw_only=True):
    """A page of leases, oldest first."""

    items: tuple[LeaseInfo, ...]
    next_cursor: str | None


class LeaseCreated(_Answer, frozen=True, kw_only=True):
    """A lease and, once, its credential: `fields` such as `username` and `password`."""

    id: str
    lease_id: str
    ttl_seconds: int
    renewable: bool
    revocable: bool
    expires_at: str
    max_expires_at: str
    fields: dict[str, str]

    def __repr__(self) -> str:
        return f"LeaseCreated({self.lease_id!r}, [redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class LeasesRevoked(_Answer, frozen=True, kw_only=True):
    """How many leases are being ended, how many cannot be (they end by themselves), and whether there are more."""

    count: int
    not_revocable: int
    more: bool
