"""Buckets: how much is admitted, how long to wait, and what is forgotten."""

from __future__ import annotations

import pytest

from keyturn.kernel.token_bucket import REMEMBERED_MAX, TokenBucket, TokenBuckets
from keyturn.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time that moves when told."""
    return ManualClock()


def test_a_burst_is_admitted_and_then_so_many_a_second(clock: ManualClock) -> None:
    bucket = TokenBucket(2.0, 3.0, clock.boottime)

    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_seconds() == pytest.approx(0.5)
    clock.advance(0.5)
    assert [bucket.take(), bucket.take()] == [True, False]
    clock.advance(3600)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_what_is_refused_takes_nothing(clock: ManualClock) -> None:
    bucket = TokenBucket(1.0, 3.0, clock.boottime)

    assert not bucket.take(4)
    assert bucket.take(3)


def test_a_debt_is_waited_for(clock: ManualClock) -> None:
    """Failures that were under way when the last token went count all the same."""
    bucket = TokenBucket(1.0, 1.0, clock.boottime)
    for _ in range(3):
        bucket.owe()

    assert bucket.wait_seconds() == pytest.approx(3.0)


def test_each_has_a_bucket_of_its_own(clock: ManualClock) -> None:
    buckets = TokenBuckets[str](1.0, 1.0, clock.boottime)

    assert [buckets.take("a"), buckets.take("a"), buckets.take("b")] == [True, False, True]
    buckets.forget("a")
    assert buckets.take("a")


def test_asking_how_long_to_wait_remembers_nothing(clock: ManualClock) -> None:
    """Else those who never fail would push out those who do."""
    buckets = TokenBuckets[int](1.0, 1.0, clock.boottime)

    assert not any(buckets.wait_seconds(number) for number in range(10))
    assert len(buckets) == 0


def test_no_more_than_so_many_are_remembered_the_latest_ones(clock: ManualClock) -> None:
    buckets = TokenBuckets[int](1.0, 1.0, clock.boottime)
    for number in range(REMEMBERED_MAX):
        buckets.owe(number)
    buckets.owe(0)
    buckets.owe(-1)

    assert len(buckets) == REMEMBERED_MAX
    assert [bool(buckets.wait_seconds(number)) for number in (0, 1, 2, -1)] == [True, False, True, True]
