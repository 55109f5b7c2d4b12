"""`POST /api/v1/verify`: the request, the answer and its codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

PRESENTED_MAX = 512


class Code(StrEnum):
    """The verdict on a presented key; an unknown code means deny."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    FORBIDDEN = "FORBIDDEN"
    INSUFFICIENT_PERMISSIONS = "INSUFFICIENT_PERMISSIONS"
    USAGE_EXCEEDED = "USAGE_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    DISABLED = "DISABLED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    NOT_YET_VALID = "NOT_YET_VALID"
    UNAVAILABLE = "UNAVAILABLE"


COST_MAX = 1_000_000
NAMED_MAX = 16
_RuleName = Annotated[str, Meta(min_length=1, max_length=32)]
Cost = Annotated[int, Meta(ge=0, le=COST_MAX)]


class LimitUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a request charges to a named limit instead of `cost`.

    With `limit` and `window_seconds` it is a limit of the request's own on this key, under that name; then no rule
    of that name may exist.
    """

    name: _RuleName
    cost: Cost = 1
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    window_seconds: Annotated[int, Meta(ge=1, le=2_678_400)] | None = None


class QuotaUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a request charges to a named quota instead of `cost`."""

    name: _RuleName
    cost: Cost = 1


class VerifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A presented key and what is known about the call it came with.

    `country` (ISO 3166-1, two letters) is where the caller says the client is; it is counted, and decides nothing.
    """

    key: str
    scopes: Annotated[str, Meta(max_length=4096)] | None = None
    ip: Annotated[str, Meta(max_length=64)] | None = None
    origin: Annotated[str, Meta(max_length=2048)] | None = None
    method: Annotated[str, Meta(max_length=32)] | None = None
    path: Annotated[str, Meta(max_length=8192)] | None = None
    user_agent: Annotated[str, Meta(max_length=1024)] | None = None
    keyspace: Annotated[str, Meta(max_length=64)] | None = None
    explain: bool = False
    cost: Cost = 1
    limits: Annotated[tuple[LimitUse, ...], Meta(max_length=NAMED_MAX)] = ()
    quotas: Annotated[tuple[QuotaUse, ...], Meta(max_length=NAMED_MAX)] = ()
    country: Annotated[str, Meta(pattern=r"^[A-Za-z]{2}(?!\n)$")] | None = None


class LimitReport(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How a limit stands after the verification; `reset_seconds` is when it is whole again."""

    name: str
    limit: int
    window_seconds: int
    remaining: int
    reset_seconds: float
    exceeded: bool = False
    shadow: bool = False


class QuotaReport(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How a quota stands as far as this node knows: what is left here, and when the period ends (RFC 3339)."""

    name: str
    remaining: int
    resets_at: str | None = None
    exceeded: bool = False
    shadow: bool = False


class CheckReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check made by verify, in the order it was made."""

    check: str
    verdict: str
    source: str
    detail: str | None = None


class VerifyResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict; `valid` and `code` are always present.

    `limits` and `quotas` say how those that were charged stand.  `retry_after_seconds` comes with RATE_LIMITED and
    USAGE_EXCEEDED when waiting helps.  `slots` are to be given back to `/api/v1/verify/release` when the call ends.
    `shadow` names what would have refused, if it were enforced.
    """

    valid: bool
    code: str
    key_id: str | None = None
    version_id: str | None = None
    keyspace: str | None = None
    owner: str | None = None
    environment: str | None = None
    name: str | None = None
    scopes: tuple[str, ...] | None = None
    expires_at: str | None = None
    metadata: dict[str, str] | None = None
    plan: str | None = None
    limits: tuple[LimitReport, ...] | None = None
    quotas: tuple[QuotaReport, ...] | None = None
    retry_after_seconds: float | None = None
    slots: tuple[str, ...] | None = None
    shadow: tuple[str, ...] | None = None
    checks: tuple[CheckReport, ...] | None = None


SlotId = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[!-~]+(?!\n)$")]


class ReleaseSlots(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Slots of concurrency limits to give back, as a verification told them."""

    slots: Annotated[tuple[SlotId, ...], Meta(max_length=256)]


class ReleasedSlots(msgspec.Struct, frozen=True):
    """How many of them were still held."""

    released: int
