"""The members of a zip archive, by its directory at the end, or member by member when that is missing.

Written against hostile archives: 64-bit sizes, members that overlap, a directory that lies about its size, methods
that are not read, encryption.  Sizes bound what is read, and never what is reserved.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.scanner.contents.compression import Compression, inflate, unpacked
from keyturn.scanner.contents.stream import Failure, Stream
from keyturn.scanner.model import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyturn.scanner.contents.budget import Spending
    from keyturn.scanner.contents.compression import Unpacker

_LOCAL: Final = b"PK\x03\x04"
_CENTRAL: Final = b"PK\x01\x02"
_END: Final = b"PK\x05\x06"
_CENTRAL_FIELDS: Final = struct.Struct("<8xHH4xIIIHHH8xI")
_LOCAL_FIELDS: Final = struct.Struct("<4x2xHH4xIIIHH")
_TAIL: Final = 66_000
_FULL: Final = 0xFFFFFFFF
_ENCRYPTED: Final = 0x41
_SIZES_FOLLOW: Final = 0x08
_METHODS: Final = {8: Compression.DEFLATE, 12: Compression.BZIP2, 93: Compression.ZSTANDARD, 95: Compression.XZ}
_LZMA: Final = 14
_OVERLAPS_TOLD: Final = 1


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file of the archive; `stream` is read before the next member is asked for."""

    name: bytes
    stream: Stream


@dataclass(frozen=True, slots=True)
class ZipRefusal:
    """A member that is not opened, and why."""

    name: bytes
    failure: Failure


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def has_directory(data: memoryview) -> bool:
    """Whether a zip archive ends here, whatever stands before it."""
    directory = _directory(data)
    return directory is not None and directory[0] < directory[1]


def zip_members(data: memoryview, spending: Spending) -> Iterator[ZipMember | ZipRefusal]:
    """Give the members in the order of the directory; a refusal without a name is of the archive."""
    directory = _directory(data)
    if directory is None:
        yield ZipRefusal(b"", Failure(Problem.CORRUPT, "has no directory: it is cut off or damaged"))
        yield from _without_directory(data, spending)
        return
    start, end, shift = directory
    covered: list[tuple[int, int]] = []
    refused = 0
    for entry in _entries(data, start, end):
        if entry is None:
            yield ZipRefusal(b"", Failure(Problem.CORRUPT, "has a damaged directory"))
            return
        if entry.name.endswith(b"/") and not entry.size and not entry.packed:
            continue
        if not spending.open_member():
            return
        body = _body(data, entry, shift)
        if body is None:
            yield ZipRefusal(entry.name, Failure(Problem.CORRUPT, "is not where the directory of its archive says"))
        elif not _claim(covered, body, body + entry.packed):
            refused += 1
            if refused <= _OVERLAPS_TOLD:
                yield ZipRefusal(entry.name, Failure(Problem.CORRUPT, "overlaps another member, and so may others"))
        else:
            yield _opened(entry, data[body : body + entry.packed], spending)


def _directory(data: memoryview) -> tuple[int, int, int] | None:
    """Return where the directory begins and ends, and by how much its offsets are too small."""
    base = max(0, len(data) - _TAIL)
    tail = bytes(data[base:])
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        return None
    size, offset = struct.unpack_from("<II", tail, at + 12)
    end = base + at
    if _FULL in {size, offset} and at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        record = end - 20 - 56
        if record < 0 or bytes(data[record : record + 4]) != b"PK\x06\x06":
            return None
        size, offset = struct.unpack_from("<QQ", data, record + 40)
        end = record
    if size > end:
        return None
    start = end - size
    shift = start - offset
    if size and bytes(data[start : start + 4]) != _CENTRAL:
        return None
    if not size and bytes(data[:4]) == _LOCAL:
        return None  # it tells of no member, and begins with one
    return start, end, shift


def _entries(data: memoryview, start: int, end: int) -> Iterator[_Entry | None]:
    at = start
    while at + 46 <= end:
        if bytes(data[at : at + 4]) != _CENTRAL:
            yield None
            return
        flags, method, crc, packed, size, name, extra, comment, offset = _CENTRAL_FIELDS.unpack_from(data, at)
        after = at + 46 + name
        if after + extra > end:
            yield None
            return
        if _FULL in {packed, size, offset}:
            size, packed, offset = _wide(bytes(data[after : after + extra]), size, packed, offset)
        yield _Entry(bytes(data[at + 46 : after]), flags, method, crc, packed, size, offset)
        at = after + extra + comment


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Read the 64-bit fields, which are there for each of the 32-bit ones that is full."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == 1:
            body = extra[at + 4 : at + 4 + length]
            wide = [int.from_bytes(body[place : place + 8], "little") for place in range(0, len(body) - 7, 8)]
            fields = [wide.pop(0) if field == _FULL and wide else field for field in (size, packed, offset)]
            return fields[0], fields[1], fields[2]
        at += 4 + length
    return size, packed, offset


def _body(data: memoryview, entry: _Entry, shift: int) -> int | None:
    at = entry.offset + shift
    if at < 0 or at + 30 > len(data) or bytes(data[at : at + 4]) != _LOCAL:
        return None
    name, extra = struct.unpack_from("<HH", data, at + 26)
    body: int = at + 30 + name + extra
    return body if body + entry.packed <= len(data) else None


def _claim(covered: list[tuple[int, int]], start: int, end: int) -> bool:
    """Take a range of the archive for a member; False when another has some of it."""
    from bisect import bisect_left, insort

    at = bisect_left(covered, (start, end))
    if at and covered[at - 1][1] > start:
        return False
    if at < len(covered) and covered[at][0] < end:
        return False
    if end > start:
        insort(covered, (start, end))
    return True


def _opened(entry: _Entry, packed: memoryview, spending: Spending) -> ZipMember | ZipRefusal:
    if entry.flags & _ENCRYPTED:
        return ZipRefusal(entry.name, Failure(Problem.CLOSED, "is encrypted"))
    stream = _unpacked(entry.method, packed, spending)
    if stream is None:
        return ZipRefusal(
            entry.name, Failure(Problem.CLOSED, f"is compressed by a method that is not read ({entry.method})")
        )
    return ZipMember(entry.name, _checked(stream, entry.crc))


def _unpacked(method: int, packed: memoryview, spending: Spending) -> Stream | None:
    source = Stream.of(packed)
    if method == 0:
        return source
    if method == _LZMA:
        return unpacked(source, _lzma_maker(source, spending), "lzma", spending)
    compression = _METHODS.get(method)
    return None if compression is None else inflate(source, compression, spending)


def _lzma_maker(source: Stream, spending: Spending) -> Callable[[], Unpacker]:
    """Read the nine bytes by which zip tells what LZMA needs to know."""
    import lzma

    header = source.read(9)

    def make() -> Unpacker:
        if len(header) < 9 or header[4] >= 225:
            raise ValueError("no properties of LZMA")
        window = int.from_bytes(header[5:9], "little")
        if window > spending.budget.xz_memory:
            raise MemoryError
        rest, lc = divmod(header[4], 9)
        pb, lp = divmod(rest, 5)
        settings = {"id": lzma.FILTER_LZMA1, "dict_size": max(window, 4096), "lc": lc, "lp": lp, "pb": pb}
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])

    return make


def _checked(stream: Stream, crc: int) -> Stream:
    """Hand a stream on, and fail at its end when its check is wrong."""
    running = 0

    def fill() -> bytes | Failure:
        nonlocal running
        chunk = stream.read(1 << 18)
        if chunk:
            running = zlib.crc32(chunk, running)
            return chunk
        if stream.failure:
            return stream.failure
        return b"" if running == crc else Failure(Problem.CORRUPT, "does not have the check that its archive names")

    return Stream(fill)


def _without_directory(data: memoryview, spending: Spending) -> Iterator[ZipMember | ZipRefusal]:
    """Go from one local header to the next, by what was read of the last."""
    import re

    header = re.compile(re.escape(_LOCAL))
    at = 0
    while (found := header.search(data, at)) and found.start() + 30 <= len(data):
        start = found.start()
        flags, method, crc, packed, size, name, extra = _LOCAL_FIELDS.unpack_from(data, start)
        body = start + 30 + name + extra
        at = start + 4
        if body > len(data):
            return
        told = bytes(data[start + 30 : start + 30 + name])
        entry = _Entry(told, flags, method, crc, packed, size, start)
        if not spending.open_member():
            return
        follows = bool(flags & _SIZES_FOLLOW)
        if not follows and _FULL not in {packed, size} and body + packed <= len(data):
            at = body + packed
            if packed:
                yield _opened(entry, data[body:at], spending)
            continue
        limit = header.search(data, body)
        end = limit.start() if limit else len(data)
        yield _loose(entry, data[body:end], spending)


def _loose(entry: _Entry, packed: memoryview, spending: Spending) -> ZipMember | ZipRefusal:
    """Open a member whose end is not known: its compression tells, and what follows is no part of it."""
    if entry.flags & _ENCRYPTED:
        return ZipRefusal(entry.name, Failure(Problem.CLOSED, "is encrypted"))
    stream = _unpacked(entry.method, packed, spending)
    if stream is None:
        return ZipRefusal(entry.name, Failure(Problem.CLOSED, "is compressed by a method that is not read"))
    return ZipMember(entry.name, stream)
