"""Waiting for a condition: it is seen as soon as it holds, and its absence is told."""

from collections.abc import Iterator

import pytest

from keyturn.testing.waiting import eventually, until, until_async


def _in_turn(*found: object) -> Iterator[object]:
    yield from found


def test_it_ends_when_the_condition_holds() -> None:
    looks = _in_turn(0, "", "there")
    assert eventually(lambda: next(looks)) == "there"
    again = _in_turn(False, True)
    assert until(lambda: next(again))


async def test_it_ends_on_an_event_loop_too() -> None:
    looks = _in_turn(False, True)
    await until_async(lambda: next(looks))
    with pytest.raises(TimeoutError):
        await until_async(lambda: False, 0.0)


def test_what_never_happens_is_told() -> None:
    assert not until(lambda: False, 0.0)
    with pytest.raises(AssertionError, match="never became true"):
        eventually(lambda: None, 0.0)
