"""A run of bytes that is read once, from its start, without being held whole.

A stream never raises for what its bytes are: it ends early and says in `failure` why.
So whoever reads it scans what could be read, and then reports what could not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from keyturn.scanner.model import Bytes, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stream ended before its end; `inherited` when the stream it is read from did, which says so itself."""

    problem: Problem
    detail: str
    inherited: bool = False


TRUNCATED: Final = Failure(Problem.CORRUPT, "ends in the middle: it is cut off")
INHERITED: Final = Failure(Problem.CORRUPT, "", inherited=True)

Fill: TypeAlias = Callable[[], bytes | Failure]
"""Gives the next bytes; none at the end; a failure when there is no going on."""


class Stream:
    """Bytes with a place in them; `rest` is what is left of a stream that lies in memory, else None."""

    __slots__ = ("_at", "_buffer", "_ended", "_fill", "_view", "failure", "position")

    def __init__(self, fill: Fill, view: memoryview | None = None) -> None:
        """Read from what `fill` gives; `of` makes a stream of bytes that lie in memory."""
        self._fill = fill
        self._view = view
        self._buffer = b""
        self._at = 0
        self._ended = False
        self.failure: Failure | None = None
        self.position = 0

    @classmethod
    def of(cls, data: Bytes) -> Stream:
        """Read bytes that lie in memory; they are not copied as a whole."""
        view = memoryview(data)
        place = 0

        def fill() -> bytes:
            nonlocal place
            chunk = bytes(view[place : place + CHUNK])
            place += len(chunk)
            return chunk

        return cls(fill, view)

    @property
    def rest(self) -> memoryview | None:
        """What was not read yet, when it lies in memory."""
        return None if self._view is None else self._view[self.position :]

    def peek(self, count: int) -> bytes:
        """Show the next bytes without going on; fewer only before the end."""
        if self._view is not None:
            return bytes(self._view[self.position : self.position + count])
        self._need(count)
        return self._buffer[self._at : self._at + count]

    def read(self, count: int) -> bytes:
        """Return the next bytes; fewer only at the end."""
        if self._view is not None:
            found = bytes(self._view[self.position : self.position + count])
        else:
            self._need(count)
            found = self._buffer[self._at : self._at + count]
            self._at += len(found)
        self.position += len(found)
        return found

    def skip(self, count: int) -> bool:
        """Go on by so many bytes; False when there are not that many."""
        if self._view is not None:
            self.position += count
            return self.position <= len(self._view)
        while count:
            step = len(self.read(min(count, CHUNK)))
            if not step:
                return False
            count -= step
        return True

    def part(self, size: int) -> Stream:
        """Return the next bytes as a stream of their own; read it before going on here."""
        if self._view is not None:
            inner = Stream.of(self._view[self.position : self.position + size])
            if self.position + size > len(self._view):
                inner.failure = TRUNCATED
            self.position = min(self.position + size, len(self._view))
            return inner
        left = size

        def fill() -> bytes | Failure:
            nonlocal left
            chunk = self.read(min(left, CHUNK))
            left -= len(chunk)
            if left and not chunk:
                return INHERITED if self.failure else TRUNCATED
            return chunk

        return Stream(fill)

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """Read to the end."""
        while chunk := self.read(size):
            yield chunk

    def _need(self, count: int) -> None:
        have = len(self._buffer) - self._at
        if have >= count or self._ended:
            return
        parts = [self._buffer[self._at :]]
        while have < count:
            chunk = self._fill()
            if isinstance(chunk, Failure):
                self.failure = chunk
            if not chunk or isinstance(chunk, Failure):
                self._ended = True
                break
            parts.append(chunk)
            have += len(chunk)
        self._buffer = b"".join(parts)
        self._at = 0
