"""Periods and refills, in UTC: pure.

day   2026-03-29      week  2026-W13 (ISO: begins on Monday)      month  2026-03      none  prepaid, never ends
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyturn.wire.policy import QuotaRule

PREPAID: Final = "prepaid"
"""What the period of a balance that never ends is called."""


@dataclass(frozen=True, slots=True)
class Span:
    """One period: its name, and from when until before when it lasts (epoch seconds; None is for good)."""

    name: str
    starts_at: float
    ends_at: float | None


def span_of(period: str, now: float) -> Span:
    """Return the period of that kind which `now` falls into; anything but day, week and month is prepaid."""
    if period not in {"day", "week", "month"}:
        return Span(PREPAID, 0.0, None)
    start = _start(period, _day(now))
    return Span(_name(period, start), start.timestamp(), _following(period, start).timestamp())


def next_refill(every: str | None, day: int | None, after: float) -> float | None:
    """Return the first moment after `after` at which a prepaid balance is refilled; None for never.

    A month's refill is on `day`, or on the last day of a month that is shorter; 1 when none is told.
    """
    if every not in {"day", "week", "month"}:
        return None
    today = _day(after)
    if every != "month":
        return _following(every, _start(every, today)).timestamp()
    first = _start("month", today)
    moment = _in_month(first, day or 1)
    if moment.timestamp() <= after:
        moment = _in_month(_following("month", first), day or 1)
    return moment.timestamp()


def refill_of(rule: QuotaRule) -> tuple[int | None, str | None, int | None]:
    """Return the amount, interval and day of a rule's refill, all None unless it is prepaid with one."""
    if rule.period in {"day", "week", "month"} or rule.refill_amount is None or rule.refill_every is None:
        return (None, None, None)
    return (rule.refill_amount, rule.refill_every, rule.refill_day)


def _day(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _start(period: str, day: datetime) -> datetime:
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def _following(period: str, start: datetime) -> datetime:
    if period == "month":
        return (start + timedelta(days=31)).replace(day=1)
    return start + timedelta(days=7 if period == "week" else 1)


def _in_month(first: datetime, day: int) -> datetime:
    return first.replace(day=min(day, calendar.monthrange(first.year, first.month)[1]))


def _name(period: str, start: datetime) -> str:
    if period == "week":
        year, week, _ = start.isocalendar()
        return f"{year}-W{week:02d}"
    return f"{start:%Y-%m}" if period == "month" else f"{start:%Y-%m-%d}"
