import pytest

from keyturn.testing.clock import START, ManualBoottime, ManualClock


def test_a_manual_clock_moves_only_when_told(manual_clock: ManualClock) -> None:
    assert [manual_clock.now(), manual_clock.now()] == [START, START]
    manual_clock.advance(2.5)
    assert manual_clock.now() == START + 2.5


def test_a_step_changes_the_time_of_day_but_no_deadline(manual_clock: ManualClock) -> None:
    before = manual_clock.boottime()
    manual_clock.step(-3600)
    assert manual_clock.now() == START - 3600
    assert manual_clock.boottime() == before


def test_clocks_of_one_machine_advance_together() -> None:
    elapsed = ManualBoottime()
    first, second = ManualClock(elapsed=elapsed), ManualClock(START + 10, elapsed=elapsed)
    first.advance(5)
    assert second.now() == START + 15


def test_time_never_goes_back() -> None:
    with pytest.raises(ValueError, match="expected time to pass"):
        ManualBoottime().advance(-1)
