"""Replica records: what a verify replica is loaded from, and nothing more.

A record holds digests and policy, never a secret that could be presented; a keyspace's peppers are the
one exception and travel only to holders of `keyspace.replicate`.  Times are epoch seconds (float, UTC).
A verifier that meets a state or restriction it does not know denies (design, Evolution).
"""

from __future__ import annotations

from typing import Literal

import msgspec

KeyState = Literal["active", "disabled", "revoked"]
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


class LimitRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named limit: how fast (`rate`, by GCRA) or how many at once (`concurrency`).

    `limit` units per `window_seconds`, at most `burst` of them at once (default: `limit`).  A concurrency limit
    admits `limit` calls in flight; a slot that is not given back is free again after `window_seconds`.
    `per` says who shares it: a `key` (all its secret versions), an `owner` (all their keys in the workspace), a
    `plan` (everyone on it) or an `ip` (within the keyspace).  Without `auto` it is charged only by a request that
    names it.  `mode` is `enforce` or `shadow` (counted and logged, refuses nothing).  `on_store_error` says what
    happens when the store of the counters cannot be asked.
    """

    name: str
    limit: int
    window_seconds: int
    burst: int | None = None
    per: str = "key"
    kind: str = "rate"
    mode: str = "enforce"
    auto: bool = True
    on_store_error: str = "deny"


class QuotaRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A strict balance: `amount` units per calendar `period` (UTC; weeks begin on Monday), or prepaid.

    With period `none` the `amount` is what the balance begins with; it is then changed by top-ups and, every
    `refill_every` (`day`, `week`, `month`; a month's on `refill_day`, or its last day when it is shorter), raised
    to `refill_amount`.  `per` is `key` or `owner`.  `auto` and `mode` are as in a LimitRule.
    """

    name: str
    amount: int
    period: str = "month"
    per: str = "key"
    refill_amount: int | None = None
    refill_every: str | None = None
    refill_day: int | None = None
    mode: str = "enforce"
    auto: bool = True


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
    default_plan: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()
    shadow_restrictions: Restrictions | None = None


class PlanRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A plan: what every key on it may do beyond what is its own, and what holds for it."""

    id: str
    workspace: str
    name: str
    scopes: tuple[str, ...] = ()
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()
    restrictions: Restrictions | None = None
    shadow_restrictions: Restrictions | None = None


class OwnerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds for all keys of an owner; an owner without a record has nothing of that."""

    id: str
    workspace: str
    name: str
    plan: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()


class VersionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One secret version of a key."""

    id: str
    number: int
    state: str
    digest_kind: str
    """`blake2b`: keyed BLAKE2b-256(pepper, SHA-256(presented)); else `bcrypt` or `argon2`, slow foreign digests."""
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
    plan: str | None = None
    limits: tuple[LimitRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()
    shadow_restrictions: Restrictions | None = None
