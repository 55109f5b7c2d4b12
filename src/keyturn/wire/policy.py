"""Replica records: what a verify replica is loaded from, and nothing more.

A record holds digests and policy, never a secret that could be presented; a keyspace's peppers are the
one exception and travel only to holders of `keyspace.replicate`.  Times are epoch seconds (float, UTC).
A verifier that meets a state or restriction it does not know denies (design, Evolution).
"""

from __future__ import annotations

from typing import Literal

import msgspec

DigestKind = Literal["blake2b", "bcrypt", "argon2"]
"""`blake2b` is keyed BLAKE2b-256(pepper, SHA-256(presented)); the others are slow foreign digests."""

KeyState = Literal["active", "disabled", "revoked"]
KeyspaceState = Literal["active", "disabled"]
VersionState = Literal["pending", "current", "previous", "suspended", "revoked", "compromised", "destroyed"]


class MethodPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One allowed combination of HTTP methods and a path pattern.

    `*` stands for one segment, at the end for one or more; `**` is allowed at the end only and says the same there.
    """

    methods: tuple[str, ...]
    path: str


class Restrictions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where and how a key may be used; every list present must be satisfied, an absent input denies."""

    cidrs: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    endpoints: tuple[MethodPath, ...] = ()


class PepperRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pepper of a keyspace, by number."""

    number: int
    value: bytes


class KeyspaceRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A keyspace as a replica needs it."""

    id: str
    workspace: str
    name: str
    prefix: str
    tag: str
    environment: str
    state: str
    stale_after_seconds: float
    peppers: tuple[PepperRecord, ...]
    restrictions: Restrictions | None = None
    accepts_foreign: bool = False
    system: bool = False


class VersionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One secret version of a key."""

    id: str
    number: int
    state: str
    digest_kind: str
    digest: bytes
    pepper: int = 0
    valid_until: float | None = None
    foreign: bool = False
    lookup: str | None = None


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An issued key with its live secret versions."""

    id: str
    keyspace: str
    owner: str
    environment: str
    state: str
    versions: tuple[VersionRecord, ...]
    scopes: tuple[str, ...] = ()
    restrictions: Restrictions | None = None
    not_before: float | None = None
    expires_at: float | None = None
    metadata: dict[str, str] | None = None
    name: str | None = None
