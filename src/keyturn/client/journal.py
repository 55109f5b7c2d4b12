r"""The journal: usage that is not with the server yet, on disk, so that a killed process loses little of it.

    <folder>/<process>.usage     mode 0600, one owner, who holds its lock; appended to only

    B <crc32> <json of a batch>\n      to be sent
    A <crc32> <batch id>\n             the server has it

A batch is synced before it is sent.  A line that does not match its check, such as one cut off by a crash, is no line.
A file whose owner has died is taken over by whoever gets its lock, sent, and removed; the server counts a batch that
comes twice once.  Past `BYTES_MAX` a batch is not kept, and counted as lost.  No key or secret is ever written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from typing import TYPE_CHECKING, Final, final

import msgspec

from keyturn.errors import ConfigError
from keyturn.kernel.secret import random_base62
from keyturn.wire.replication import UsageBatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BYTES_MAX: Final = 16 * 2**20
SUFFIX: Final = ".usage"

# macOS has no fdatasync.
_sync: Final = getattr(os, "fdatasync", os.fsync)
_decode: Final = msgspec.json.Decoder(UsageBatch).decode


@final
class Journal:
    """The journal of one process; for one thread.  Raises ConfigError when the folder cannot be used."""

    def __init__(self, folder: Path, *, bytes_max: int = BYTES_MAX) -> None:
        """Open a new file, and take over those that nobody holds."""
        self._folder = folder
        self._bytes_max = bytes_max
        self._open: dict[str, None] = {}
        self._size = 0
        self.inherited: list[UsageBatch] = []
        """Batches of processes that died before they were sent; append them, or send them, first."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path = folder / f"{os.getpid()}-{random_base62(8)}{SUFFIX}"
            # Nobody may find it before it is locked.
            hidden = self._path.with_suffix(".new")
            self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(self._path)
            self._take_over()
        except OSError as error:
            raise ConfigError(f"the journal cannot be kept in {folder}", internal=type(error).__name__) from error

    def append(self, batch: UsageBatch) -> bool:
        """Store a batch durably; False when there is no room for it, or the disk refuses."""
        line = _line(b"B", msgspec.json.encode(batch))
        if self._size + len(line) > self._bytes_max:
            return False
        try:
            self._write(line)
            _sync(self._file)
        except OSError:
            return False
        self._open[batch.batch_id] = None
        return True

    def acknowledge(self, batch_id: str) -> None:
        """Note that the server has a batch; a file with nothing left to send is emptied."""
        if batch_id not in self._open:
            return
        del self._open[batch_id]
        with contextlib.suppress(OSError):
            if self._open:
                self._write(_line(b"A", batch_id.encode()))
            else:
                os.ftruncate(self._file, 0)
                self._size = 0

    def close(self) -> None:
        """Let go of the file, and remove it when there is nothing left to send."""
        with contextlib.suppress(OSError):
            if not self._open:
                self._path.unlink()
            os.close(self._file)

    def abandon(self) -> None:
        """Let go of a file that belongs to the parent of this process."""
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        self._size += written
        if written != len(line):
            os.write(self._file, b"\n")
            raise OSError("the disk is full")

    def _take_over(self) -> None:
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path == self._path:
                continue
            with contextlib.suppress(OSError):
                self._take(path)

    def _take(self, path: Path) -> None:
        """Move what a dead process left into this journal; a living one holds its lock, and is left alone."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(file), "rb") as stream:
                batches = list(unsent(stream.read(2 * self._bytes_max)))
            # The copies are durable before the originals go: a crash between the two sends a batch twice.
            kept = [batch for batch in batches if self.append(batch)]
            self.inherited.extend(kept)
            if len(kept) == len(batches):
                path.unlink()
        finally:
            os.close(file)


def unsent(content: bytes) -> Iterator[UsageBatch]:
    """Yield the batches of a journal that were not acknowledged."""
    batches: dict[bytes, UsageBatch] = {}
    for line in content.split(b"\n"):
        kind, _, rest = line.partition(b" ")
        check, _, body = rest.partition(b" ")
        if check != _check(kind, body):
            continue
        if kind == b"A":
            batches.pop(body, None)
        elif kind == b"B":
            with contextlib.suppress(msgspec.DecodeError):
                batch = _decode(body)
                batches[batch.batch_id.encode()] = batch
    yield from batches.values()


def _line(kind: bytes, body: bytes) -> bytes:
    return b"%s %s %s\n" % (kind, _check(kind, body), body)


def _check(kind: bytes, body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(kind + b" " + body)
