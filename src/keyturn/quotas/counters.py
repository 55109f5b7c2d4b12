"""The counter file of one process: what it has spent of each block, in memory that outlives a kill.

    header   64 bytes   "KTQUOTA1" | node id, 40 bytes | device | inode (of this very file)
             64 bytes   boot id, padded
    record   64 bytes   block id, 40 bytes | units | spent | in use (1) or free (0)

Counts are 8-byte aligned stores into a shared mapping: never torn, and kept by the system when the process is killed.
A machine that went down may have kept an older count, so a file of another boot is not believed, and neither is a
copy of a file.  The lock on a file tells whether its process still runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from keyturn.errors import StorageError

MAGIC: Final = b"KTQUOTA1"
SUFFIX: Final = ".counters"
RECORD: Final = 64
HEADER: Final = 2 * RECORD
RECORDS_FIRST: Final = 254
RECORDS_MAX: Final = 2**20
ID_BYTES: Final = 40
_HEADER: Final = struct.Struct(f"={len(MAGIC)}s{ID_BYTES}sQQ")
_UNITS: Final = 5
_SPENT: Final = 6
_USED: Final = 7
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Left:
    """What a process that has ended left: what it had spent of its blocks, and whether that can be believed."""

    node: str
    spent: dict[str, int]
    believed: bool


class CounterFile:
    """The counters of a running process; see the module.

    `cells` is the mapping as 8-byte numbers; `cells[spent_cell]` is what a block's record counts.  It is another
    object after `add` has made the file larger, so it is read anew each time.
    """

    __slots__ = ("_descriptor", "_free", "_map", "_path", "_records", "cells")

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        """Not for callers: use `create`."""
        self._path = path
        self._descriptor = descriptor
        self._records = (size - HEADER) // RECORD
        self._free = list(range(self._records - 1, -1, -1))
        self._map = mmap.mmap(descriptor, size)
        self.cells = memoryview(self._map).cast("q")

    @classmethod
    def create(cls, folder: Path, node: str) -> Self:
        """Create the file of a process, locked before anybody can see it; raises StorageError."""
        path = folder / f"{node}{SUFFIX}"
        waiting = folder / f".{node}{SUFFIX}"
        size = HEADER + RECORDS_FIRST * RECORD
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(waiting, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(descriptor, 0, size)
            status = os.fstat(descriptor)
            header = _HEADER.pack(MAGIC, node.encode(), status.st_dev, status.st_ino)
            os.pwrite(descriptor, header.ljust(RECORD, b"\0") + boot_id(), 0)
            waiting.rename(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                waiting.unlink()
            raise StorageError(f"no counters can be kept in {folder}", hint="check its rights and its disk") from error
        return cls(path, descriptor, size)

    def add(self, block: str, units: int) -> int:
        """Begin to count a block; return the cell of its count.  Raises StorageError for a full disk."""
        if not self._free:
            self._grow()
        place = HEADER + self._free.pop() * RECORD
        self._map[place : place + ID_BYTES] = block.encode().ljust(ID_BYTES, b"\0")
        first = place // 8
        self.cells[first + _UNITS] = units
        self.cells[first + _SPENT] = 0
        self.cells[first + _USED] = 1
        return first + _SPENT

    def hold(self, spent_cell: int, units: int) -> None:
        """Note how many units a block holds now."""
        self.cells[spent_cell + _UNITS - _SPENT] = units

    def remove(self, spent_cell: int) -> None:
        """Forget a block that is settled."""
        self.cells[spent_cell + _USED - _SPENT] = 0
        self._free.append((spent_cell * 8 - HEADER) // RECORD)

    @property
    def used(self) -> int:
        """How many blocks are counted."""
        return self._records - len(self._free)

    def close(self, *, remove: bool) -> None:
        """Let go of the file, and remove it when everything in it is settled."""
        if self._descriptor < 0:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        self.cells.release()
        self._map.close()
        os.close(self._descriptor)
        self._descriptor = -1

    def _grow(self) -> None:
        records = min(RECORDS_MAX, 2 * (self._records + 1))
        if records <= self._records:
            raise StorageError(f"a process holds at most {RECORDS_MAX} blocks", code="storage_busy")
        size = HEADER + records * RECORD
        try:
            # A store into a page that has no place on the disk would kill the process.
            os.posix_fallocate(self._descriptor, 0, size)
            larger = mmap.mmap(self._descriptor, size)
        except OSError as error:
            raise StorageError("the counters cannot grow", hint="free space on the volume of the data") from error
        self.cells.release()
        self._map.close()
        self._map = larger
        self.cells = memoryview(larger).cast("q")
        self._free = list(range(records - 1, self._records - 1, -1))
        self._records = records


class Orphan:
    """A counter file whose process has ended; locked, so that nobody else settles it."""

    def __init__(self, path: Path, descriptor: int, left: Left) -> None:
        """Not for callers: use `orphans`."""
        self._path = path
        self._descriptor = descriptor
        self.left = left

    def close(self, *, remove: bool) -> None:
        """Let go of it, and remove it when it is settled."""
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def orphans(folder: Path) -> list[Orphan]:
    """Lock and read the counter files whose processes have ended; close each of them."""
    if not folder.is_dir():
        return []
    found: list[Orphan] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if not path.name.startswith("."):
            orphan = _lock(path)
            if orphan is not None:
                found.append(orphan)
    return found


def boot_id() -> bytes:
    """Return what tells this run of the machine from others, 64 bytes; all zero where the system does not say."""
    try:
        return _BOOT_ID.read_bytes().strip()[:RECORD].ljust(RECORD, b"\0")
    except OSError:
        return bytes(RECORD)


def _lock(path: Path) -> Orphan | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)
            return None
        left = _read(descriptor, path.name.removesuffix(SUFFIX))
    except OSError:
        os.close(descriptor)
        return None
    return Orphan(path, descriptor, left)


def _read(descriptor: int, name: str) -> Left:
    status = os.fstat(descriptor)
    data = os.pread(descriptor, status.st_size, 0)
    if len(data) < HEADER:
        return Left(name, {}, believed=False)
    magic, node, device, inode = _HEADER.unpack_from(data)
    boot = data[RECORD:HEADER]
    believed = (
        magic == MAGIC
        and node.rstrip(b"\0").decode("ascii", "replace") == name
        and (device, inode) == (status.st_dev, status.st_ino)
        and boot == boot_id() != bytes(RECORD)
    )
    spent: dict[str, int] = {}
    for place in range(HEADER, len(data) - RECORD + 1, RECORD):
        count, used = struct.unpack_from("=qq", data, place + _SPENT * 8)
        if used == 1:
            spent[data[place : place + ID_BYTES].rstrip(b"\0").decode("ascii", "replace")] = count
    return Left(name, spent, believed)
