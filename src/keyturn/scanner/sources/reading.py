"""One file of the system as a document, without trust in what it is."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator

import msgspec

from keyturn.scanner.model import Document, Notice, Problem

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_READ_BYTES_MAX = 1 << 25
"""A file that is longer is mapped, and one that is not is read: a mapped file that is cut short ends the process."""

_EXTENT_GAP = 1 << 20
_STEP = 1 << 18


class Bounds(msgspec.Struct, frozen=True):
    """What is read of a file: `bytes_max` 0 stands for all; a link is followed only if wanted.

    `given` says that the file was asked for by its name: that it is none is an error.
    """

    bytes_max: int = 0
    follow_links: bool = False
    given: bool = False


def read_file(path: bytes, shown: str, bounds: Bounds) -> Iterator[Document | Notice]:
    """Read a file: one document, or several when it is long and mostly holes, or a notice.

    Nothing but a regular file is read; opening a FIFO or a device neither waits nor rewinds a tape.
    """
    try:
        descriptor = os.open(path, _FLAGS if bounds.follow_links else _FLAGS | os.O_NOFOLLOW)
    except OSError as failed:
        yield _refused(shown, failed)
        return
    try:
        status = os.fstat(descriptor)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode) and bounds.given:
            yield Notice(Problem.UNREADABLE, shown, "not a regular file; what a program writes can be piped in, as `-`")
        elif not stat.S_ISREG(status.st_mode):
            yield Notice(Problem.SKIPPED, shown, "not a regular file")
        elif bounds.bytes_max and size > bounds.bytes_max:
            yield Notice(Problem.BOUND, shown, f"{size} bytes, of which no more than {bounds.bytes_max} are read")
        elif size <= _READ_BYTES_MAX:
            data, cut = _read(descriptor, size)
            yield Document(data, shown)
            if cut:
                yield Notice(Problem.BOUND, shown, f"it grows while it is read: {len(data)} bytes of it were scanned")
        elif status.st_blocks * 512 < size // 2:
            yield from _extents(descriptor, size, shown)
        else:
            yield Document(memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)), shown)
    except (OSError, ValueError) as failed:
        yield Notice(Problem.UNREADABLE, shown, _why(failed))
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int) -> tuple[bytes, bool]:
    """Return what a file holds, and whether there is more: what the system makes up tells a size of 0."""
    data = os.read(descriptor, size or _STEP)
    if len(data) == size:
        return data, False
    parts, total = [data], len(data)
    while parts[-1] and total <= _READ_BYTES_MAX:
        parts.append(os.read(descriptor, _STEP))
        total += len(parts[-1])
    return b"".join(parts), bool(parts[-1])


def _extents(descriptor: int, size: int, shown: str) -> Iterator[Document]:
    """Read what is in a file with holes: the system knows where its data is; a hole holds zeros and no line end."""
    mapped = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
    line = 1
    start, end = _data_after(descriptor, 0, size)
    while start < size:
        following = _data_after(descriptor, end, size)
        if following[0] - end < _EXTENT_GAP and following[0] < size:
            end = following[1]
            continue
        part = mapped[start:end]
        yield Document(part, shown, first_line=line)
        line += sum(bytes(part[at : at + _EXTENT_GAP]).count(b"\n") for at in range(0, len(part), _EXTENT_GAP))
        start, end = following


def _data_after(descriptor: int, position: int, size: int) -> tuple[int, int]:
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as failed:
        if failed.errno == errno.ENXIO:  # only a hole is left
            return size, size
        raise
    return start, os.lseek(descriptor, start, os.SEEK_HOLE)


def _refused(shown: str, failed: OSError) -> Notice:
    if failed.errno in {errno.ELOOP, errno.EMLINK}:
        return Notice(Problem.SKIPPED, shown, "a symbolic link")
    if failed.errno in {errno.ENXIO, errno.ENODEV}:
        return Notice(Problem.SKIPPED, shown, "not a regular file")
    return Notice(Problem.UNREADABLE, shown, _why(failed))


def _why(failed: OSError | ValueError) -> str:
    return (failed.strerror or "cannot be read").lower() if isinstance(failed, OSError) else "changed while it was read"
