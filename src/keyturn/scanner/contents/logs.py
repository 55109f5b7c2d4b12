r"""Logs of build machines: escape sequences taken out, time stamps taken off, wrapped tokens joined again.

The lines stay where they are: every line of what is scanned is the line of the same number in the file.
A token that a terminal wrapped is joined in a small document of its own, whose own bytes are that token alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_STAMP: Final = re.compile(
    rb"^(?:\xef\xbb\xbf)?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z (?:[0-9a-f]{2}[OE][+ ])?", re.MULTILINE
)
_CONTINUED: Final = re.compile(rb"\n\d{4}-\d\d-\d\dT[\d:.]{8,18}Z [0-9a-f]{2}[OE]\+")
_ESCAPE: Final = re.compile(
    rb"\x1b(?:\[[0-?]*+[ -/]*+[@-~]?|[\]PX^_]([^\x07\x1b\n]{0,4096}+)(?:\x07|\x1b\\)?|[ -/]*+[0-~]?)"
)
_MARKS: Final = (b"section_start:", b"##[group]", b"##[command]", b"::group::", b"travis_fold:")
_OPERATING: Final = 20
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_\-+/=.%:@~]+")
_NARROWEST: Final = 72
_WIDEST: Final = 512
_BASE64_WIDTH: Final = 76
_LINES_JOINED: Final = 64
_AFTER: Final = 64


@dataclass(frozen=True, slots=True)
class Joined:
    """Lines that were one: `start` and `end` are the token that went over the border; `line` counts from 0."""

    text: bytes
    line: int
    start: int
    end: int


def starts_stamped(head: bytes) -> bool:
    """Whether the first line has a time stamp as GitHub and GitLab write them."""
    return _STAMP.match(head) is not None


def is_build_log(head: bytes) -> bool:
    """Whether it is the log of a build machine."""
    return starts_stamped(head) or any(mark in head for mark in _MARKS)


def plain(text: bytes) -> bytes:
    """Take out escape sequences and time stamps; a long operating system command, as of a link, leaves its text."""
    if b"\x1b" in text:
        text = _ESCAPE.sub(_left, text)
    return _STAMP.sub(b"", text)


def joined(raw: bytes, text: bytes) -> Iterator[Joined]:
    """Give the tokens of `text`, the plain form of `raw`, that go on in the next line."""
    lines = text.split(b"\n")
    if text.count(b"\r\n"):
        lines = [line.removesuffix(b"\r") for line in lines]
    continued = _continued_lines(raw)
    width = max(map(len, lines), default=0)
    if not _NARROWEST <= width <= _WIDEST or width == _BASE64_WIDTH:
        width = 0
    if not width and not continued:
        return
    index = 0
    while index < len(lines) - 1:
        last = index
        while last + 1 < len(lines) and last - index < _LINES_JOINED and _goes_on(lines, last, width, continued):
            last += 1
        if last > index:
            yield from _tokens(lines, index, last)
        index = last + 1


def _left(found: re.Match[bytes]) -> bytes:
    told = found[1]
    return b" " + told + b" " if told and len(told) >= _OPERATING else b""


def _continued_lines(raw: bytes) -> frozenset[int]:
    """Return the numbers, from 0, of the lines that say they go on with the one before."""
    if not (starts_stamped(raw[:64]) and b"+" in raw):
        return frozenset()
    found: set[int] = set()
    line = place = 0
    for mark in _CONTINUED.finditer(raw):
        line += raw.count(b"\n", place, mark.start() + 1)
        place = mark.start() + 1
        found.add(line)
    return frozenset(found)


def _goes_on(lines: list[bytes], index: int, width: int, continued: frozenset[int]) -> bool:
    if index + 1 in continued:
        return True
    if not width or len(lines[index]) != width:
        return False
    return _TOKEN.match(lines[index][-1:]) is not None and _TOKEN.match(lines[index + 1]) is not None


def _tokens(lines: list[bytes], first: int, last: int) -> Iterator[Joined]:
    """Give each token that crosses a border, with its line before it and what it ends in."""
    text = b"".join(lines[first : last + 1])
    border = 0
    told = 0
    for index in range(first, last):
        border += len(lines[index])
        before = _TOKEN.match(text[max(0, border - _WIDEST) : border][::-1])
        after = _TOKEN.match(text, border, min(len(text), border + _WIDEST * 8))
        if before is None or after is None or border - before.end() < told:
            continue
        told = after.end()
        start = border - before.end()
        begin = max(0, start - _WIDEST)
        yield Joined(text[begin : told + _AFTER], index, start - begin, border - begin)
