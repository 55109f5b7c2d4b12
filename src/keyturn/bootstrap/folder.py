"""The data folder and its lock: with SQLite exactly one server may use a folder."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from keyturn.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "lock"


def create_folder(path: Path) -> None:
    """Create the data folder for its owner alone; raises ConfigError when that is impossible."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"the data folder {path} cannot be created"
        raise ConfigError(
            message, hint="check KEYTURN_DATA and the rights of its parent", internal=str(error)
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        message = f"the data folder {path} cannot be written by this user"
        raise ConfigError(message, hint="check its owner and mode, or set KEYTURN_DATA")


class FolderLock:
    """An exclusive lock on a data folder, held until `release` and by every process forked meanwhile.

    The system lets go of it when the last of them ends, however it ends, so there is never a stale one.
    """

    def __init__(self, descriptor: int) -> None:
        """Not for callers: use `acquire`."""
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> Self:
        """Take the lock; raises ConfigError naming the process that has it."""
        path = folder / LOCK_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            message = f"the data folder {folder} is in use by another Keyturn process (pid {holder})"
            raise ConfigError(
                message, code="folder_locked", hint="stop that one first, or set another KEYTURN_DATA"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let go; harmless when done before."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()
