"""Limits and quotas as requests give them; what is kept of them are the LimitRule and QuotaRule of `wire.policy`.

Here the words that a field may hold are spelt out, so that the API's description has them; there they are plain text,
so that a verifier can read what a later version wrote.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

RULES_MAX = 16
"""How many limits, and how many quotas, one place may have."""
UNITS_MAX = 1_000_000_000
WINDOW_SECONDS_MAX = 2_678_400
"""31 days."""
AMOUNT_MAX = 1_000_000_000_000
MONTH_DAYS_MAX = 31
RULE_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,31}(?!\n)$"

RuleName = Annotated[str, Meta(min_length=1, max_length=32, pattern=RULE_NAME_PATTERN)]
PlanName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(?!\n)$")]
Units = Annotated[int, Meta(ge=1, le=UNITS_MAX)]
WindowSeconds = Annotated[int, Meta(ge=1, le=WINDOW_SECONDS_MAX)]
Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Refill = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
MonthDay = Annotated[int, Meta(ge=1, le=MONTH_DAYS_MAX)]

LimitSharing = Literal["key", "owner", "plan", "ip"]
LimitKind = Literal["rate", "concurrency"]
QuotaSharing = Literal["key", "owner"]
QuotaPeriod = Literal["day", "week", "month", "none"]
RefillEvery = Literal["day", "week", "month"]
RuleMode = Literal["enforce", "shadow"]
OnStoreError = Literal["allow", "deny"]


class LimitInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A limit of `limit` units per `window_seconds`, or of calls at once; see LimitRule for what each field says."""

    name: RuleName
    limit: Units
    window_seconds: WindowSeconds
    burst: Units | None = None
    per: LimitSharing = "key"
    kind: LimitKind = "rate"
    mode: RuleMode = "enforce"
    auto: bool = True
    on_store_error: OnStoreError = "deny"


class QuotaInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A balance of `amount` units per calendar period, or a prepaid one; see QuotaRule for what each field says."""

    name: RuleName
    amount: Amount
    period: QuotaPeriod = "month"
    per: QuotaSharing = "key"
    refill_amount: Refill | None = None
    refill_every: RefillEvery | None = None
    refill_day: MonthDay | None = None
    mode: RuleMode = "enforce"
    auto: bool = True


Limits = Annotated[tuple[LimitInput, ...], Meta(max_length=RULES_MAX)]
Quotas = Annotated[tuple[QuotaInput, ...], Meta(max_length=RULES_MAX)]
