"""Which limits and quotas may be written.  Pure: what a request gives in, what is kept out, or InputError.

The wire bounds each field already; here they hold for callers inside the process too, and so does what one field
says about another:

    a name stands once in a place               burst belongs to `rate` limits
    refills belong to period `none`             refill_amount and refill_every come together
    refill_day belongs to refill_every `month`
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from keyturn.errors import InputError
from keyturn.wire import rules as wire
from keyturn.wire.policy import LimitRule, QuotaRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.audit.model import Detail
    from keyturn.wire.rules import LimitInput, QuotaInput

_is_name: Final = re.compile(wire.RULE_NAME_PATTERN).match
_SHOWN_MAX: Final = 64


def check_limits(given: Sequence[LimitInput | LimitRule]) -> tuple[LimitRule, ...]:
    """Return the limits as they are kept; raises InputError naming the field, as `limits[2].burst`."""
    _check_place(given, "limits")
    for at, one in enumerate(given):
        place = f"limits[{at}]"
        _within(f"{place}.limit", one.limit, 1, wire.UNITS_MAX)
        _within(f"{place}.window_seconds", one.window_seconds, 1, wire.WINDOW_SECONDS_MAX)
        _one_of(f"{place}.per", one.per, get_args(wire.LimitSharing))
        _one_of(f"{place}.kind", one.kind, get_args(wire.LimitKind))
        _one_of(f"{place}.mode", one.mode, get_args(wire.RuleMode))
        _one_of(f"{place}.on_store_error", one.on_store_error, get_args(wire.OnStoreError))
        if one.burst is not None:
            if one.kind == "concurrency":
                raise _refused(f"{place}.burst", "expected no burst: a concurrency limit counts calls at once already")
            _within(f"{place}.burst", one.burst, 1, wire.UNITS_MAX)
    return tuple(LimitRule(**_fields(one)) for one in given)


def check_quotas(given: Sequence[QuotaInput | QuotaRule]) -> tuple[QuotaRule, ...]:
    """Return the quotas as they are kept; raises InputError naming the field, as `quotas[0].refill_day`."""
    _check_place(given, "quotas")
    for at, one in enumerate(given):
        place = f"quotas[{at}]"
        _within(f"{place}.amount", one.amount, 0, wire.AMOUNT_MAX)
        _one_of(f"{place}.period", one.period, get_args(wire.QuotaPeriod))
        _one_of(f"{place}.per", one.per, get_args(wire.QuotaSharing))
        _one_of(f"{place}.mode", one.mode, get_args(wire.RuleMode))
        _check_refill(one, place)
    return tuple(QuotaRule(**_fields(one)) for one in given)


def limits_detail(limits: Sequence[LimitRule]) -> list[Detail]:
    """Return limits as an audit leaf shows them."""
    return [_detail(one) for one in limits]


def quotas_detail(quotas: Sequence[QuotaRule]) -> list[Detail]:
    """Return quotas as an audit leaf shows them."""
    return [_detail(one) for one in quotas]


def _check_refill(one: QuotaInput | QuotaRule, place: str) -> None:
    for name in ("refill_amount", "refill_every", "refill_day"):
        if one.period != "none" and getattr(one, name) is not None:
            raise _refused(
                f"{place}.{name}",
                f"expected no refill: a quota per {one.period} begins anew by itself",
                hint="use period none for a prepaid balance",
            )
    if one.refill_amount is not None:
        _within(f"{place}.refill_amount", one.refill_amount, 1, wire.AMOUNT_MAX)
        if one.refill_every is None:
            raise _refused(f"{place}.refill_every", "expected how often to refill, since refill_amount is given")
    if one.refill_every is not None:
        _one_of(f"{place}.refill_every", one.refill_every, get_args(wire.RefillEvery))
        if one.refill_amount is None:
            raise _refused(f"{place}.refill_amount", "expected what to refill to, since refill_every is given")
    if one.refill_day is not None:
        if one.refill_every != "month":
            raise _refused(f"{place}.refill_day", "expected no refill_day: it belongs to refill_every month")
        _within(f"{place}.refill_day", one.refill_day, 1, wire.MONTH_DAYS_MAX)


def _check_place(given: Sequence[Any], field: str) -> None:
    if len(given) > wire.RULES_MAX:
        raise _refused(field, f"expected at most {wire.RULES_MAX} entries, found {len(given)}")
    seen: set[str] = set()
    for at, one in enumerate(given):
        place = f"{field}[{at}].name"
        if not isinstance(one.name, str) or _is_name(one.name) is None:
            raise _refused(place, f"expected 1-32 of a-z0-9_-, found {str(one.name)[:_SHOWN_MAX]!r}")
        if one.name in seen:
            raise _refused(place, f"the name {one.name} stands twice", hint="one place has a name once")
        seen.add(one.name)


def _within(field: str, value: object, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise _refused(field, f"expected {lowest} to {highest}, found {str(value)[:_SHOWN_MAX]}")


def _one_of(field: str, value: object, words: Sequence[str]) -> None:
    if value not in words:
        raise _refused(field, f"expected one of {', '.join(words)}, found {str(value)[:_SHOWN_MAX]!r}")


def _refused(field: str, message: str, hint: str | None = None) -> InputError:
    return InputError(f"{field}: {message}", field=field, hint=hint)


def _fields(one: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _detail(one: msgspec.Struct) -> Detail:
    found: dict[str, Detail] = msgspec.to_builtins(one)
    return found
