"""The window of changes that polls are answered from."""

from typing import Any, cast

import pytest

from keyturn.keys import news as module
from keyturn.keys.news import News
from keyturn.storage.change_log import Change

NOWHERE = cast("Any", None)


def _told(news: News, *numbers: int) -> None:
    news.refresh(NOWHERE, [Change(number, "wsp_1", "key", f"key_{number}") for number in numbers])()


def _since(news: News, after: int) -> list[int] | None:
    found = news.since(after)
    return None if found is None else [change.seq for change in found]


def test_numbers_that_hold_leaves_alone_may_be_missing() -> None:
    news = News()
    news.reloaded("log_1", 10)
    _told(news, 11, 15)
    news.advanced(20, 0)

    assert [_since(news, after) for after in (9, 10, 11, 14, 15, 20, 25)] == [
        None,
        [11, 15],
        [15],
        [15],
        [],
        [],
        [],
    ]


def test_what_is_not_applied_yet_is_not_told() -> None:
    news = News()
    news.reloaded("log_1", 10)
    _told(news, 11, 12)
    news.advanced(11, 0)

    assert _since(news, 10) == [11]


def test_a_window_that_was_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    news = News()
    news.reloaded("log_1", 0)
    _told(news, *range(2, 16, 2))
    news.advanced(14, 0)

    assert [_since(news, after) for after in (0, 7, 8, 9, 12)] == [None, None, [10, 12, 14], [10, 12, 14], [14]]


def test_nothing_is_known_of_a_log_that_was_lost() -> None:
    news = News()
    news.reloaded("log_1", 3)
    _told(news, 4)
    news.advanced(4, 0)
    news.lost()
    news.reloaded("log_2", 9)

    assert [_since(news, after) for after in (3, 8, 9)] == [None, None, []]
