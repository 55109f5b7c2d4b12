import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import clock
from keyturn.kernel.clock import Clock

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "time.json").read_text())

NOON = 1_767_323_045.0


class Hand:
    """Boottime that a test moves by hand."""

    def __init__(self, seconds: float = 100.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def test_now_moves_with_boottime() -> None:
    hand = Hand()
    local = Clock(NOON - 100, boottime=hand)
    assert local.now() == NOON
    hand.seconds += 2.5
    assert local.now() == NOON + 2.5
    assert local.boottime() == 102.5
    assert local.now_utc() == datetime.fromtimestamp(NOON + 2.5, UTC)


def test_a_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expiry and freshness must not move when somebody sets the system clock."""
    hand = Hand()
    local = Clock(boottime=hand)
    before = local.now()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert local.now() == before


def test_without_an_offset_the_wall_clock_gives_the_first() -> None:
    assert abs(Clock().now() - clock.wall()) < 5


def test_boottime_does_not_go_back() -> None:
    first = clock.boottime()
    assert clock.boottime() >= first


def test_learning_takes_the_answer_to_be_from_halfway() -> None:
    hand = Hand(110.0)
    local = Clock(0.0, boottime=hand)
    jump = local.learn(NOON, 100.0, 104.0)
    assert jump == NOON - 102
    assert local.now() == NOON + 8


def test_a_small_correction_is_below_the_alarm_and_a_step_above_it() -> None:
    hand = Hand()
    local = Clock(NOON - 100, boottime=hand)
    assert local.learn(NOON + 0.5, 100, 100) <= local.max_jump
    assert local.learn(NOON - 3, 100, 100) > local.max_jump
    assert local.now() == NOON - 3


@pytest.mark.parametrize(
    ("database_time", "sent", "received"),
    [(math.nan, 1.0, 2.0), (math.inf, 1.0, 2.0), (NOON, math.nan, 2.0), (NOON, 1.0, math.inf), (NOON, 2.0, 1.0)],
)
def test_a_senseless_answer_is_refused_and_leaves_the_offset(
    database_time: float,
    sent: float,
    received: float,
) -> None:
    """A NaN for an offset would make every comparison of an expiry false."""
    local = Clock(5.0, boottime=Hand())
    with pytest.raises(ValueError, match="expected"):
        local.learn(database_time, sent, received)
    assert local.now() == 105.0


@pytest.mark.parametrize("case", VECTORS["parse"], ids=lambda case: case["reason"])
def test_time_is_read_as_its_vector_says(case: Case) -> None:
    if case["epoch_seconds"] is None:
        with pytest.raises(ValueError):  # noqa: PT011 - the calendar's own messages are many
            clock.parse_rfc3339(case["text"])
    else:
        assert clock.parse_rfc3339(case["text"]) == case["epoch_seconds"]


@pytest.mark.parametrize("case", VECTORS["write"], ids=lambda case: case["reason"])
def test_time_is_written_as_its_vector_says(case: Case) -> None:
    if case["text"] is None:
        with pytest.raises(ValueError, match="expected a time"):
            clock.rfc3339(case["epoch_seconds"])
    else:
        assert clock.rfc3339(case["epoch_seconds"]) == case["text"]


@pytest.mark.parametrize("epoch", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_finite_is_not_written(epoch: float) -> None:
    with pytest.raises(ValueError, match="expected a finite time"):
        clock.rfc3339(epoch)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_every_millisecond_is_read_back(milliseconds: int) -> None:
    text = clock.rfc3339(milliseconds / 1000)
    assert clock.parse_rfc3339(text) == milliseconds / 1000
    assert clock.rfc3339(clock.parse_rfc3339(text)) == text


@given(st.text())
def test_text_that_is_no_time_raises_value_error_only(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        clock.parse_rfc3339(text)


@given(st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"))
def test_text_that_looks_like_a_time_is_read_or_raises_value_error(text: str) -> None:
    try:
        seconds = clock.parse_rfc3339(text)
    except ValueError:
        return
    assert clock.parse_rfc3339(clock.rfc3339(seconds)) == pytest.approx(seconds, abs=0.0006)
