"""What keys keeps: keyspaces, keys and secret versions as they are stored.  Times are epoch seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions

ACTIVE = "active"
DISABLED = "disabled"
REVOKED = "revoked"

PENDING = "pending"
CURRENT = "current"
PREVIOUS = "previous"
SUSPENDED = "suspended"
COMPROMISED = "compromised"
DESTROYED = "destroyed"

LIVE_VERSION_STATES = frozenset({PENDING, CURRENT, PREVIOUS, SUSPENDED})
"""States from which a version may still be admitted, now or later."""

SYSTEM_KEYSPACE = "~system"
"""The name of the keyspace of management tokens; no wildcard matches it and no request can name it."""

RETIRED = "retired"
"""A plan that nothing is on any more, or can be put on."""


@dataclass(frozen=True, slots=True)
class Keyspace:
    """An API whose keys are issued here."""

    id: str
    workspace: str
    name: str
    prefix: str
    tag: str
    environment: str
    state: str
    system: bool
    stale_after_seconds: float
    stale_after_was: float | None
    stale_after_changed_at: float | None
    restrictions: Restrictions | None
    accepts_foreign: bool
    description: str
    created_at: float
    created_by: str
    revision: int
    shadow_restrictions: Restrictions | None = None
    default_plan: str | None = None
    default_plan_name: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return f"keyspace/{self.name}"


@dataclass(frozen=True, slots=True)
class Key:
    """An issued key; its secrets are its versions."""

    id: str
    workspace: str
    keyspace: str
    keyspace_name: str
    environment: str
    name: str | None
    owner: str
    purpose: str
    state: str
    scopes: tuple[str, ...]
    restrictions: Restrictions | None
    metadata: dict[str, str]
    tags: tuple[str, ...]
    not_before: float | None
    expires_at: float | None
    created_at: float
    created_by: str
    updated_at: float
    disabled_at: float | None
    revoked_at: float | None
    revoke_reason: str | None
    revision: int
    shadow_restrictions: Restrictions | None = None
    plan: str | None = None
    plan_name: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return f"key/{self.keyspace_name}/{self.id}"


@dataclass(frozen=True, slots=True)
class Version:
    """One secret version of a key."""

    id: str
    key: str
    keyspace: str
    number: int
    state: str
    digest_kind: str
    digest: bytes = field(repr=False)
    pepper: int
    foreign: bool
    lookup: str | None = field(repr=False)
    created_at: float
    created_by: str
    valid_until: float | None
    retired_at: float | None


@dataclass(frozen=True, slots=True)
class VersionChange:
    """A version's new state and ends."""

    id: str
    state: str
    valid_until: float | None
    retired_at: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A named bundle of scopes, limits, quotas and restrictions."""

    id: str
    workspace: str
    name: str
    state: str
    description: str
    scopes: tuple[str, ...]
    limits: tuple[LimitRule, ...]
    quotas: tuple[QuotaRule, ...]
    restrictions: Restrictions | None
    shadow_restrictions: Restrictions | None
    created_at: float
    created_by: str
    updated_at: float
    revision: int

    @property
    def resource(self) -> str:
        """Its name in grants."""
        return f"plan/{self.name}"


@dataclass(frozen=True, slots=True)
class Owner:
    """What was set for all keys of an owner; revision 0 is an owner that nothing was set for, and is not stored."""

    id: str
    workspace: str
    name: str
    plan: str | None
    plan_name: str | None
    limits: tuple[LimitRule, ...]
    quotas: tuple[QuotaRule, ...]
    created_at: float
    updated_at: float
    updated_by: str
    revision: int
