"""The members of a tar archive, read forward: ustar, GNU and pax, with sparse files in their packed form.

Links, devices and FIFOs are passed over: they hold no bytes, and nothing is ever followed or created.
Written against hostile headers: no length in the archive is trusted further than the bytes that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.scanner.contents.stream import CHUNK, INHERITED, TRUNCATED, Failure, Stream
from keyturn.scanner.model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.contents.budget import Spending

_BLOCK: Final = 512
_EMPTY: Final = b"\0" * _BLOCK
_HEADER_BYTES_MAX: Final = 1 << 20
_WITHOUT_BYTES: Final = b"123456"
_LONG_NAMES: Final = b"LK"
_PAX: Final = b"xgX"
_AFTER_END: Final = b"(after the end)"


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file of the archive; its bytes are read before the next member is asked for."""

    name: bytes
    size: int
    stream: Stream


def is_tar(head: bytes) -> bool:
    """Whether a block is the header of a member: its checksum is right, and it has a name."""
    return len(head) >= _BLOCK and head[0] != 0 and _checksum_holds(head[:_BLOCK])


def tar_members(archive: Stream, spending: Spending) -> Iterator[TarMember | Failure]:
    """Give the members in their order; a failure is the last thing that is given."""
    headers = _Headers(archive)
    while (found := headers.following()) is not None:
        if isinstance(found, Failure):
            yield found
            return
        if found.kind in _WITHOUT_BYTES:
            continue
        if not spending.open_member():
            return
        yield from _member(archive, found.name, found.size)
        if archive.failure or not archive.skip(-found.size % _BLOCK):
            return
    yield from _after_end(archive, spending)


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    kind: bytes
    size: int


class _Headers:
    """Reads headers, and the extensions that stand before one and change its name and size."""

    def __init__(self, archive: Stream) -> None:
        self._archive = archive
        self._name: bytes | None = None
        self._size: int | None = None

    def following(self) -> _Header | Failure | None:
        """Return the next header of a member; None at the end."""
        while True:
            block = self._archive.read(_BLOCK)
            if len(block) < _BLOCK:
                return _end(self._archive, block)
            if block == _EMPTY:
                return None
            if not _checksum_holds(block):
                return Failure(Problem.CORRUPT, "has a damaged tar header; what comes after it was not scanned")
            kind = block[156:157]
            length = _number(block[124:136])
            if length is None:
                return Failure(Problem.CORRUPT, "has a tar header without a size; what comes after it was not scanned")
            if kind not in _LONG_NAMES and kind not in _PAX:
                return self._member(block, kind, length)
            failure = self._extend(kind, length)
            if failure is not None:
                return failure

    def _member(self, block: bytes, kind: bytes, length: int) -> _Header | Failure:
        if kind == b"S" and not _skip_sparse_map(self._archive, block):
            return TRUNCATED
        header = _Header(
            _name(block) if self._name is None else self._name, kind, length if self._size is None else self._size
        )
        self._name = self._size = None
        return header

    def _extend(self, kind: bytes, length: int) -> Failure | None:
        found = _extension(self._archive, length)
        if isinstance(found, Failure):
            return found
        if kind == b"L":
            self._name = found.split(b"\0", 1)[0]
        elif kind in b"xX":
            self._name, self._size = _pax(found, self._name)
        return None


def _member(archive: Stream, name: bytes, length: int) -> Iterator[TarMember | Failure]:
    end = archive.position + length
    member = TarMember(name, length, archive.part(length))
    yield member
    if archive.position < end:
        archive.skip(end - archive.position)


def _after_end(archive: Stream, spending: Spending) -> Iterator[TarMember]:
    """Give what follows the end, such as another archive: zeros that fill up a block or a tape do not count."""
    while chunk := archive.peek(CHUNK):
        zeros = len(chunk) - len(chunk.lstrip(b"\0"))
        archive.skip(zeros if zeros == len(chunk) else zeros // _BLOCK * _BLOCK)
        if zeros < len(chunk):
            break
    rest = archive.rest
    if chunk and spending.open_member():
        stream = Stream(lambda: archive.read(CHUNK)) if rest is None else archive.part(len(rest))
        yield TarMember(_AFTER_END, len(chunk) if rest is None else len(rest), stream)


def _end(archive: Stream, block: bytes) -> Failure | None:
    if archive.failure:
        return INHERITED
    return TRUNCATED if block else None


def _extension(archive: Stream, length: int) -> bytes | Failure:
    if length > _HEADER_BYTES_MAX:
        return Failure(Problem.BOUND, f"has a tar header of {length} bytes; what comes after it was not scanned")
    found = archive.read(length)
    if len(found) < length or not archive.skip(-length % _BLOCK):
        return INHERITED if archive.failure else TRUNCATED
    return found


def _skip_sparse_map(archive: Stream, header: bytes) -> bool:
    extended = header[482] != 0
    while extended:
        block = archive.read(_BLOCK)
        if len(block) < _BLOCK:
            return False
        extended = block[504] != 0
    return True


def _checksum_holds(header: bytes) -> bool:
    told = _number(header[148:156])
    if told is None:
        return False
    total = sum(header) - sum(header[148:156]) + 256
    if told == total:
        return True
    # Some old archives summed signed bytes: each of 128 or more counts 256 less.
    return told == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _number(field: bytes) -> int | None:
    if field[0] in {0x80, 0xFF}:
        number = int.from_bytes(field[1:], "big")
        return number if field[0] == 0x80 and number < 1 << 62 else None
    digits = field.split(b"\0", 1)[0].strip(b" ")
    try:
        return int(digits or b"0", 8) if not digits or digits.isdigit() else None
    except ValueError:
        return None


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(records: bytes, name: bytes | None) -> tuple[bytes | None, int | None]:
    size: int | None = None
    sparse_name: bytes | None = None
    at = 0
    while at < len(records):
        space = records.find(b" ", at, at + 20)
        if space < 0 or not records[at:space].isdigit() or not (length := int(records[at:space])):
            break
        key, _, value = records[space + 1 : at + length].removesuffix(b"\n").partition(b"=")
        at += length
        if key == b"path":
            name = value
        elif key == b"GNU.sparse.name":
            sparse_name = value
        elif key == b"size" and value.isdigit() and len(value) < 19:
            size = int(value)
    return (sparse_name if sparse_name is not None else name), size
