"""Compressed streams: gzip, zlib, deflate, bzip2, xz, lzma and zstandard, unpacked piece by piece and within bounds.

Streams that follow each other in one file are one, as every tool reads them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from keyturn.scanner.contents.stream import CHUNK, INHERITED, TRUNCATED, Failure, Stream
from keyturn.scanner.model import Problem

if TYPE_CHECKING:
    from keyturn.scanner.contents.budget import Budget, Spending

_STEP: Final = 1 << 20
_SMALL: Final = 4096


class Compression(StrEnum):
    """How a stream is compressed."""

    GZIP = "gzip"
    ZLIB = "zlib"
    DEFLATE = "deflate"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    ZSTANDARD = "zstandard"


class Unpacker(Protocol):
    """Unpacks one stream; each call returns at most `max_length` bytes."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was given after the end of the stream."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more bytes."""
        ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes:
        """Return what comes out of some more bytes."""
        ...


class _Zlib:
    """zlib's object in the form that the others have."""

    __slots__ = ("_inner", "_left")

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)
        self._left = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._left

    def decompress(self, data: bytes, max_length: int = _STEP, /) -> bytes:
        found = self._inner.decompress(self._left + data if self._left else data, max_length)
        self._left = self._inner.unconsumed_tail
        return found


def inflate(source: Stream, compression: Compression, spending: Spending) -> Stream:
    """Return what comes out of a compressed stream."""
    return unpacked(source, _maker(compression, spending.budget), compression, spending)


def unpacked(source: Stream, make: Callable[[], Unpacker], name: str, spending: Spending) -> Stream:
    """Return what comes out of a stream under an unpacker, a new one for each of the streams that follow each other."""
    return Stream(_Inflation(source, make, name, spending).fill)


class _Inflation:
    def __init__(self, source: Stream, make: Callable[[], Unpacker], name: str, spending: Spending) -> None:
        self._source = source
        self._make = make
        self._name = name
        self._spending = spending
        self._current: Unpacker | None = None
        self._pending = b""
        self._out = 0
        self._out_before = 0

    def fill(self) -> bytes | Failure:
        """Return the next unpacked bytes; none at the end."""
        try:
            found = self._next()
        except MemoryError:
            return Failure(Problem.BOUND, f"needs more memory than {self._name} may have")
        except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
            return self._damage(error)
        except Exception as error:
            # lzma.LZMAError and ZstdError are named only by modules that most runs never import.
            if type(error).__name__ not in {"LZMAError", "ZstdError"}:
                raise
            return self._damage(error)
        if isinstance(found, Failure):
            return found
        self._out += len(found)
        budget = self._spending.budget
        if not self._spending.unpack(len(found)):
            return Failure(Problem.BOUND, self._spending.hit, inherited=True)
        if self._out > budget.ratio_free + budget.ratio * self._source.position:
            return Failure(Problem.BOUND, f"unfolds to more than {budget.ratio} times its size")
        return found

    def _next(self) -> bytes | Failure:
        while True:
            if self._current is None:
                if not self._more():
                    return b""
                self._current = self._make()
            feeding = self._current.needs_input
            if feeding and not self._pending:
                self._pending = self._source.read(CHUNK)
                if not self._pending:
                    return INHERITED if self._source.failure else TRUNCATED
            data, self._pending = (self._pending, b"") if feeding else (b"", self._pending)
            found = self._current.decompress(data, _STEP)
            if self._current.eof:
                self._pending = self._current.unused_data + self._pending
                self._current = None
                if not self._count(len(found)):
                    return Failure(Problem.BOUND, self._spending.hit, inherited=True)
            if found:
                return found

    def _more(self) -> bool:
        """Whether another stream follows; zeros that fill up a tape or a sector do not count."""
        if self._out_before or self._out:
            self._pending = self._pending.lstrip(b"\0")
        while not self._pending:
            chunk = self._source.read(CHUNK)
            if not chunk:
                return False
            self._pending = chunk.lstrip(b"\0") if self._out_before else chunk
        return True

    def _count(self, last: int) -> bool:
        self._out_before += 1
        # A file of countless tiny streams costs time, not space: they count as members do.
        return self._out_before == 1 or last >= _SMALL or self._spending.open_member()

    def _damage(self, error: Exception) -> Failure:
        if "emory" in str(error):
            return Failure(Problem.BOUND, f"needs more memory than {self._name} may have")
        if self._out_before and self._current is not None:
            return Failure(Problem.CORRUPT, f"has bytes after its end that are no {self._name}")
        return Failure(Problem.CORRUPT, f"is no whole {self._name} stream")


def _maker(compression: Compression, budget: Budget) -> Callable[[], Unpacker]:
    match compression:
        case Compression.GZIP:
            return lambda: _Zlib(31)
        case Compression.ZLIB:
            return lambda: _Zlib(15)
        case Compression.DEFLATE:
            return lambda: _Zlib(-15)
        case Compression.BZIP2:
            import bz2

            return bz2.BZ2Decompressor
        case Compression.XZ | Compression.LZMA:
            import lzma

            container = lzma.FORMAT_XZ if compression is Compression.XZ else lzma.FORMAT_ALONE
            return lambda: lzma.LZMADecompressor(container, memlimit=budget.xz_memory)
        case Compression.ZSTANDARD:
            from backports import zstd

            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: budget.window_log}
            return lambda: zstd.ZstdDecompressor(options=options)
