"""Lines of bytes: which one an offset is on, and what it says, without making a list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from keyturn.scanner.model import Bytes

_STEP: Final = 1 << 16


@final
class Lines:
    """Finds lines in some bytes; offsets that go up are found without starting over."""

    def __init__(self, data: Bytes, first_line: int = 1) -> None:
        """Count from `first_line`."""
        self._data, self._first = data, first_line
        self._at, self._line = 0, first_line
        self._start = 0, 0

    def line_of(self, offset: int) -> int:
        """Return the number of the line that a byte is on."""
        if offset < self._at:
            self._at, self._line = 0, self._first
        while self._at < offset:
            end = min(offset, self._at + _STEP)
            self._line += bytes(self._data[self._at : end]).count(b"\n")
            self._at = end
        return self._line

    def start_of(self, offset: int) -> int:
        """Return where the line of a byte begins."""
        known, start = self._start
        if offset >= known:
            newline = self._newline_before(offset, known)
            start = start if newline < 0 else newline + 1
        else:
            start = self._newline_before(offset, 0) + 1
        self._start = offset, start
        return start

    def near_start_of(self, offset: int, reach: int) -> int:
        """Return where the line of a byte begins, or what is `reach` bytes before it when that is later."""
        least = max(0, offset - reach)
        return max(least, self._newline_before(offset, least) + 1)

    def end_of(self, offset: int, reach: int) -> int:
        """Return where the line of a byte ends, or what is `reach` after the byte when that is earlier."""
        found = bytes(self._data[offset : offset + reach]).find(b"\n")
        return min(len(self._data), offset + reach) if found < 0 else offset + found

    def _newline_before(self, offset: int, least: int) -> int:
        end, step = offset, 256
        while end > least:
            begin = max(least, end - step)
            found = bytes(self._data[begin:end]).rfind(b"\n")
            if found >= 0:
                return begin + found
            end, step = begin, min(step * 4, _STEP)
        return -1
