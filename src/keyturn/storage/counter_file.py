"""A file of counters that outlives `kill -9`: mapped into memory, so that counting is a store and no system call.

    offset 0    magic "KTCOUNT1", slot size, slots (two u32)             16 bytes
    offset 16   slot 0: id (32 bytes, padded with zeros), a u64, a u64   48 bytes each

A process creates one file for itself, holds a lock on it while it lives, and removes it when what it counted is
safely elsewhere.  A file whose lock is free was left behind: `orphans` gives it to exactly one process at a time.

The page cache keeps what was stored when the process dies, however it dies.  It does not outlive the machine: after a
loss of power a slot may be older than it was.  Each number is stored as one aligned word, so none is ever half written.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from keyturn.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC: Final = b"KTCOUNT1"
SUFFIX: Final = ".counters"
ID_BYTES: Final = 32
SLOTS_DEFAULT: Final = 64
SLOTS_MAX: Final = 1_048_576
_HEADER: Final = struct.Struct("<8sII")
_SLOT_BYTES: Final = ID_BYTES + 16
_SLOT_WORDS: Final = _SLOT_BYTES // 8
_FIRST_WORD: Final = (_HEADER.size + ID_BYTES) // 8


@dataclass(frozen=True, slots=True)
class Slot:
    """What one slot says: whose it is, and its two numbers."""

    index: int
    id: str
    first: int
    second: int


class CounterFile:
    """A locked file of slots; `words` is the whole file as unsigned 64-bit numbers, for the hot path.

    For one thread at a time.
    """

    def __init__(self, path: Path, descriptor: int, mapped: mmap.mmap, slots: int) -> None:
        """Not for callers: use `create` or `orphans`."""
        self.path = path
        self.slots = slots
        self._descriptor = descriptor
        self._mapped = mapped
        self.words = memoryview(mapped).cast("Q")
        self._used = {slot.id: slot.index for slot in self}
        taken = set(self._used.values())
        self._free = [index for index in range(slots - 1, -1, -1) if index not in taken]

    @classmethod
    def create(cls, path: Path, *, slots: int = SLOTS_DEFAULT) -> Self:
        """Make a new file for this process and lock it; raises StorageError when that is impossible."""
        size = _HEADER.size + slots * _SLOT_BYTES
        waiting = path.with_name(f"{path.name}.new")
        try:
            descriptor = os.open(waiting, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Allocated now: a full disk must not end the process with SIGBUS at the first store.
            os.posix_fallocate(descriptor, 0, size)
            os.pwrite(descriptor, _HEADER.pack(MAGIC, _SLOT_BYTES, slots), 0)
            mapped = mmap.mmap(descriptor, size)
            # It appears under its name locked and whole.
            waiting.replace(path)
        except OSError as error:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                waiting.unlink(missing_ok=True)
            raise _failed(path, error) from error
        return cls(path, descriptor, mapped, slots)

    def slot(self, slot_id: str) -> int | None:
        """Return the slot of this id, taking a free one if it has none; None when all are taken."""
        index = self._used.get(slot_id)
        if index is not None:
            return index
        raw = slot_id.encode("ascii")
        if not 0 < len(raw) <= ID_BYTES or b"\0" in raw:
            message = f"an id of 1 to {ID_BYTES} ASCII characters"
            raise ValueError(message)
        if not self._free:
            return None
        index = self._free.pop()
        word = self.first_word(index)
        self.words[word] = 0
        self.words[word + 1] = 0
        start = _HEADER.size + index * _SLOT_BYTES
        self._mapped[start : start + ID_BYTES] = raw.ljust(ID_BYTES, b"\0")
        self._used[slot_id] = index
        return index

    @staticmethod
    def first_word(index: int) -> int:
        """Return where in `words` the first number of a slot is; the second follows it."""
        return _FIRST_WORD + index * _SLOT_WORDS

    def set(self, index: int, first: int, second: int) -> None:
        """Store both numbers of a slot, one after the other."""
        word = self.first_word(index)
        self.words[word] = first
        self.words[word + 1] = second

    def get(self, index: int) -> tuple[int, int]:
        """Return both numbers of a slot."""
        word = self.first_word(index)
        return self.words[word], self.words[word + 1]

    def release(self, slot_id: str) -> None:
        """Give a slot back; harmless when the id has none."""
        index = self._used.pop(slot_id, None)
        if index is None:
            return
        start = _HEADER.size + index * _SLOT_BYTES
        self._mapped[start : start + ID_BYTES] = bytes(ID_BYTES)
        self._free.append(index)

    def __iter__(self) -> Iterator[Slot]:
        """Yield every slot that is taken."""
        for index in range(self.slots):
            start = _HEADER.size + index * _SLOT_BYTES
            raw = self._mapped[start : start + ID_BYTES].rstrip(b"\0")
            if raw:
                yield Slot(index, raw.decode("ascii", "replace"), *self.get(index))

    def close(self) -> None:
        """Let go of the file, which stays for the next start to find; harmless when done before."""
        if self._descriptor < 0:
            return
        self.words.release()
        self._mapped.close()
        os.close(self._descriptor)
        self._descriptor = -1

    def remove(self) -> None:
        """Delete the file, because all it says is safely elsewhere, and let go of it."""
        # Before the lock is given up: nobody may take what is about to go.
        self.path.unlink(missing_ok=True)
        self.close()


def path_of(folder: Path, prefix: str, name: str) -> Path:
    """Return where the counters of a process are: `<prefix>-<name>.counters`."""
    return folder / f"{prefix}-{name}{SUFFIX}"


def name_of(path: Path, prefix: str) -> str:
    """Return the name that `path_of` was given."""
    return path.name.removeprefix(f"{prefix}-").removesuffix(SUFFIX)


def orphans(folder: Path, prefix: str) -> Iterator[CounterFile]:
    """Yield each file that its process has left behind, locked for this one; `remove` or `close` each.

    What is no counter file of this format is left alone.
    """
    for path in sorted(folder.glob(f"{prefix}-*{SUFFIX}")):
        found = _take(path)
        if found is not None:
            yield found


def _take(path: Path) -> CounterFile | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    found: CounterFile | None = None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        slots = _slots_of(descriptor)
        # Whoever had the lock until now may have removed it meanwhile.
        if slots is not None and os.path.samestat(os.fstat(descriptor), path.stat()):
            mapped = mmap.mmap(descriptor, _HEADER.size + slots * _SLOT_BYTES)
            found = CounterFile(path, descriptor, mapped, slots)
    except OSError:
        found = None
    if found is None:
        os.close(descriptor)
    return found


def _slots_of(descriptor: int) -> int | None:
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return None
    magic, slot_bytes, slots = _HEADER.unpack(header)
    whole = os.fstat(descriptor).st_size >= _HEADER.size + slots * _SLOT_BYTES
    known = magic == MAGIC and slot_bytes == _SLOT_BYTES and slots <= SLOTS_MAX
    return int(slots) if known and whole else None


def _failed(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the counter file {path} cannot be made",
        hint="check the space on its volume, and the rights of its folder",
        internal=str(error),
    )
