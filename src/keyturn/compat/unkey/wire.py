"""The bodies of the Unkey API, version 2, as far as they are read and answered here.

Times are Unix milliseconds, durations milliseconds.  Unknown fields are ignored, as its own server does: its SDKs may
be newer than this.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Millis = Annotated[int, Meta(ge=0, le=4_102_444_800_000)]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Presented = Annotated[str, Meta(min_length=1, max_length=512)]
KeyRef = Annotated[str, Meta(min_length=1, max_length=64)]
Units = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]


class _Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A request; unknown fields are ignored."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Part of an answer; what is None is left out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


# --- parts -------------------------------------------------------------------------------------------------------


class Refill(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """When credits are raised to `amount` again."""

    interval: Literal["daily", "monthly"]
    amount: Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
    refill_day: Annotated[int, Meta(ge=1, le=31)] | None = None


class Credits(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is left; `null` is without bound."""

    remaining: Units | None
    refill: Refill | UnsetType | None = UNSET


class UpdateCreditsPart(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Credits in an update: what is left out stays."""

    remaining: Units | UnsetType | None = UNSET
    refill: Refill | UnsetType | None = UNSET


class Ratelimit(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A named limit of a key."""

    name: Text
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    duration: Annotated[int, Meta(ge=1, le=2_678_400_000)]
    auto_apply: bool = False


class RatelimitUse(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A limit to be charged by a verification, of the key's or, with limit and duration, of the request's own."""

    name: Text
    cost: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    duration: Annotated[int, Meta(ge=1, le=2_678_400_000)] | None = None


class CreditsUse(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many credits a verification costs."""

    cost: Annotated[int, Meta(ge=0, le=1_000_000)]


# --- requests ----------------------------------------------------------------------------------------------------


class CreateApi(_Body, frozen=True, kw_only=True):
    """`apis.createApi`."""

    name: Text


class ListKeys(_Body, frozen=True, kw_only=True):
    """`apis.listKeys`."""

    api_id: Text
    limit: Annotated[int, Meta(ge=1, le=100)] = 100
    cursor: Annotated[str, Meta(max_length=512)] | None = None
    external_id: Text | None = None
    decrypt: bool = False


class CreateKey(_Body, frozen=True, kw_only=True):
    """`keys.createKey`."""

    api_id: Text
    prefix: str | None = None
    name: str | None = None
    external_id: str | None = None
    meta: dict[str, Any] | None = None
    roles: list[str] | None = None
    permissions: list[str] | None = None
    expires: Millis | None = None
    credits: Credits | None = None
    ratelimits: list[Ratelimit] | None = None
    enabled: bool = True
    recoverable: bool = False


class VerifyKey(_Body, frozen=True, kw_only=True):
    """`keys.verifyKey`."""

    key: Presented
    permissions: Annotated[str, Meta(max_length=4096)] | None = None
    credits: CreditsUse | None = None
    keyspaces: Annotated[list[Text], Meta(max_length=100)] | None = None
    ratelimits: Annotated[list[RatelimitUse], Meta(max_length=16)] | None = None


class GetKey(_Body, frozen=True, kw_only=True):
    """`keys.getKey`."""

    key_id: KeyRef
    decrypt: bool = False


class UpdateKeyBody(_Body, frozen=True, kw_only=True):
    """`keys.updateKey`: what is left out stays, `null` clears."""

    key_id: KeyRef
    name: str | UnsetType | None = UNSET
    external_id: str | UnsetType | None = UNSET
    meta: dict[str, Any] | UnsetType | None = UNSET
    expires: Millis | UnsetType | None = UNSET
    credits: UpdateCreditsPart | UnsetType | None = UNSET
    ratelimits: list[Ratelimit] | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    roles: list[str] | UnsetType = UNSET
    permissions: list[str] | UnsetType = UNSET


class DeleteKey(_Body, frozen=True, kw_only=True):
    """`keys.deleteKey`; `permanent` makes no difference."""

    key_id: KeyRef
    permanent: bool = False


class RerollKey(_Body, frozen=True, kw_only=True):
    """`keys.rerollKey`: the old secret stays valid for `expiration` milliseconds; `null` leaves it valid for long."""

    key_id: KeyRef
    expiration: Annotated[int, Meta(ge=0, le=315_360_000_000)] | None


class UpdateCredits(_Body, frozen=True, kw_only=True):
    """`keys.updateCredits`; `set` to `null` is without bound."""

    key_id: KeyRef
    operation: Literal["set", "increment", "decrement"]
    value: Units | UnsetType | None = UNSET


class Whoami(_Body, frozen=True, kw_only=True):
    """`keys.whoami`."""

    key: Presented


class Limit(_Body, frozen=True, kw_only=True):
    """`ratelimit.limit`."""

    namespace: Text
    identifier: Text
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    duration: Annotated[int, Meta(ge=1000, le=2_678_400_000)]
    cost: Annotated[int, Meta(ge=0, le=1_000_000)] = 1


# --- answers -----------------------------------------------------------------------------------------------------


class ShownCredits(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is left of a key's credits; `null` is without bound."""

    remaining: int | None
    refill: Refill | None = None


class Identity(_Data, frozen=True, kw_only=True):
    """Who a key belongs to."""

    id: str
    external_id: str


class ShownRatelimit(_Data, frozen=True, kw_only=True):
    """A named limit of a key."""

    id: str
    name: str
    limit: int
    duration: int
    auto_apply: bool


class ChargedRatelimit(_Data, frozen=True, kw_only=True):
    """How a limit stands after a verification; `reset` is when it is whole again."""

    exceeded: bool
    id: str
    name: str
    limit: int
    duration: int
    reset: int
    remaining: int
    auto_apply: bool


class KeyData(_Data, frozen=True, kw_only=True):
    """A key; `start` is how it begins, up to its public id."""

    key_id: str
    start: str
    enabled: bool
    created_at: int
    name: str | None = None
    meta: dict[str, Any] | None = None
    updated_at: int | None = None
    last_used_at: int | None = None
    expires: int | None = None
    permissions: tuple[str, ...] | None = None
    credits: ShownCredits | None = None
    identity: Identity | None = None
    ratelimits: tuple[ShownRatelimit, ...] | None = None


class VerifiedKey(_Data, frozen=True, kw_only=True):
    """A verdict."""

    valid: bool
    code: str
    key_id: str | None = None
    keyspace_id: str | None = None
    name: str | None = None
    meta: dict[str, Any] | None = None
    expires: int | None = None
    credits: int | None = None
    enabled: bool | None = None
    permissions: tuple[str, ...] | None = None
    identity: Identity | None = None
    ratelimits: tuple[ChargedRatelimit, ...] | None = None


class NewApi(_Data, frozen=True, kw_only=True):
    """A new API."""

    api_id: str


class NewKey(_Data, frozen=True, kw_only=True):
    """A new secret, shown this once."""

    key_id: str
    key: str


class Limited(_Data, frozen=True, kw_only=True):
    """How a limit stands."""

    limit: int
    remaining: int
    reset: int
    success: bool


class Empty(_Data, frozen=True, kw_only=True):
    """Nothing."""


class Pagination(_Data, frozen=True, kw_only=True):
    """Whether there is more, and how to go on."""

    has_more: bool
    cursor: str | None = None


class Page(msgspec.Struct, frozen=True):
    """A page of keys."""

    items: tuple[KeyData, ...]
    pagination: Pagination
