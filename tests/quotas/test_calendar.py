"""Periods and refills, in UTC."""

from __future__ import annotations

import pytest

from keyturn.kernel.clock import parse_rfc3339, rfc3339
from keyturn.quotas.calendar import next_refill, span_of


@pytest.mark.parametrize(
    ("period", "at", "name", "starts", "ends"),
    [
        ("day", "2026-03-29T23:59:59.999Z", "2026-03-29", "2026-03-29", "2026-03-30"),
        ("day", "2024-02-29T00:00:00Z", "2024-02-29", "2024-02-29", "2024-03-01"),
        ("week", "2026-03-29T12:00:00Z", "2026-W13", "2026-03-23", "2026-03-30"),
        ("week", "2027-01-01T00:00:00Z", "2026-W53", "2026-12-28", "2027-01-04"),
        ("week", "2024-12-30T00:00:00Z", "2025-W01", "2024-12-30", "2025-01-06"),
        ("month", "2026-12-31T23:59:59Z", "2026-12", "2026-12-01", "2027-01-01"),
        ("month", "2024-02-29T10:00:00Z", "2024-02", "2024-02-01", "2024-03-01"),
    ],
)
def test_periods_are_those_of_the_calendar(period: str, at: str, name: str, starts: str, ends: str) -> None:
    span = span_of(period, parse_rfc3339(at))
    assert span.name == name
    assert span.ends_at is not None
    assert (rfc3339(span.starts_at)[:10], rfc3339(span.ends_at)[:10]) == (starts, ends)
    assert span_of(period, span.ends_at).starts_at == span.ends_at


def test_a_prepaid_balance_never_ends() -> None:
    assert (span_of("none", 0.0).ends_at, span_of("none", 0.0)) == (None, span_of("none", 1e9))


@pytest.mark.parametrize(
    ("every", "day", "after", "due"),
    [
        ("day", None, "2026-03-29T10:00:00Z", "2026-03-30"),
        ("week", None, "2026-03-29T10:00:00Z", "2026-03-30"),
        ("week", None, "2026-03-30T00:00:00Z", "2026-04-06"),
        ("month", None, "2026-03-29T10:00:00Z", "2026-04-01"),
        ("month", 15, "2026-03-14T10:00:00Z", "2026-03-15"),
        ("month", 15, "2026-03-15T00:00:00Z", "2026-04-15"),
        ("month", 31, "2026-01-31T12:00:00Z", "2026-02-28"),
        ("month", 31, "2026-02-28T00:00:00Z", "2026-03-31"),
        ("month", 31, "2026-12-31T00:00:00Z", "2027-01-31"),
    ],
)
def test_refills_come_at_midnight_and_on_the_last_day_of_a_month_that_is_shorter(
    every: str, day: int | None, after: str, due: str
) -> None:
    found = next_refill(every, day, parse_rfc3339(after))
    assert found is not None
    assert rfc3339(found) == f"{due}T00:00:00.000Z"


def test_without_an_interval_nothing_is_refilled() -> None:
    assert next_refill(None, None, 0.0) is None
