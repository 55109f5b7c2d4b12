"""What keys keeps: keyspaces, keys and secret versions as they are stored.  Times are epoch seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.wire.policy import Restrictions

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
