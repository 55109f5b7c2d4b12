"""What a watcher asks, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest

from keyturn import errors
from keyturn.delivery.selection import Collected, Selection, collect
from keyturn.delivery.watching import CONFIRM_SECONDS, LOOK_SECONDS, Watcher
from keyturn.wire.secrets import SecretInfo, SecretNews, SecretValue
from tests.client.test_secrets import value
from tests.delivery.shelf import Shelf


class Source:
    """A source in memory with a clock; `answers` are given one after the other, errors are raised."""

    def __init__(self) -> None:
        self.now = 0.0
        self.held = {"production/payments/a": 1}
        self.answers: list[tuple[str, ...] | Exception] = []
        self.asked: list[tuple[tuple[str, ...], str | None, float]] = []
        self.then: Callable[[], None] = lambda: None

    def read_secret(self, path: str, *, version: int | None = None) -> SecretValue:
        return value(path, version or self.held[path])

    def secrets(self, prefix: str = "") -> Iterator[SecretInfo]:
        shelf = Shelf()
        for path in sorted(self.held):
            shelf.put(path)
            if path.startswith(prefix):
                yield msgspec.convert(shelf.info(path), SecretInfo)

    def secret_news(self, paths: Sequence[str], cursor: str | None = None, wait_seconds: float = 0.0) -> SecretNews:
        self.asked.append((tuple(paths), cursor, wait_seconds))
        self.now += wait_seconds
        answer = self.answers.pop(0) if self.answers else ()
        if isinstance(answer, Exception):
            raise answer
        return SecretNews(cursor=str(len(self.asked)), changed=answer)


class World:
    def __init__(self, cursor: str | None = "0") -> None:
        self.source = Source()
        self.told: list[Collected] = []
        self.confirmed: list[Collected] = []
        self.reports: list[str] = []
        collected = collect(self.source, Selection(folders=("production/payments",)))
        self.watcher = Watcher(
            self.source,
            collected,
            cursor,
            tell=self.told.append,
            confirm=self.confirmed.append,
            report=self.reports.append,
            now=lambda: self.source.now,
        )


def test_news_of_another_value_is_told_and_of_the_same_is_not() -> None:
    world = World()
    world.source.answers = [("production/payments/a",), ("production/payments/a",)]
    world.watcher.step()
    assert world.told == []
    world.source.held["production/payments/a"] = 2
    world.watcher.step()
    assert [one.values["production/payments/a"].sequence for one in world.told] == [2]
    assert world.source.asked == [(("production/payments/a",), "0", 10.0), (("production/payments/a",), "1", 10.0)]


def test_without_a_cursor_everything_is_read_once_more() -> None:
    """After a start from the offline copy nobody knows what has changed since."""
    world = World(cursor=None)
    world.source.held["production/payments/a"] = 5
    world.watcher.step()
    assert world.source.asked[0][2] == 0.0
    assert len(world.told) == 1


def test_a_change_that_cannot_be_read_is_asked_for_again() -> None:
    world = World()
    world.source.answers = [("production/payments/a",), ("production/payments/a",)]
    held = world.source.held
    world.source.held = {}
    with pytest.raises(KeyError):
        world.watcher.step()
    world.source.held = {**held, "production/payments/a": 2}
    world.watcher.step()
    # The cursor of the first answer was not taken over, or the change would be lost.
    assert [cursor for _, cursor, _ in world.source.asked] == ["0", "0"]
    assert len(world.told) == 1


def test_a_new_secret_of_the_folder_is_noticed_in_time() -> None:
    world = World()
    world.source.held["production/payments/b"] = 1
    for _ in range(int(LOOK_SECONDS / 10)):
        world.watcher.step()
    assert [one.paths for one in world.told] == [("production/payments/a", "production/payments/b")]
    world.watcher.step()
    assert world.source.asked[-1][0] == ("production/payments/a", "production/payments/b")


def test_what_is_still_current_is_confirmed_now_and_then() -> None:
    world = World()
    for _ in range(int(CONFIRM_SECONDS / 10) * 2):
        world.watcher.step()
    assert len(world.confirmed) == 2


def test_an_outage_is_told_once_and_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("keyturn.delivery.watching.pause", float)
    world = World()
    down = errors.UnavailableError("no answer", code="unreachable")
    world.source.answers = [down, down, down, ()]

    def wait(seconds: float | None = None) -> bool:
        waits.append(seconds or 0.0)
        if len(waits) == 4:
            world.watcher.stop()
        return True

    monkeypatch.setattr(world.watcher._stopped, "wait", wait)  # noqa: SLF001
    world.watcher.run()
    assert waits == [1.0, 2.0, 3.0, 0.0]
    assert world.reports == ["no answer [unreachable]; still using what was read before", "the server answers again"]
    assert world.told == []
