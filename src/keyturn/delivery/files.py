"""Values as files that only this user can read, in memory where the system has such a place, and removed at the end.

    <place>/keyturn-run-<random>/     0700; <place> is /dev/shm, else XDG_RUNTIME_DIR, else the temporary directory
        .lock                         held as long as the process lives
        <name>, <secret>/<field>      0600; replaced in one step

After `kill -9` the folder stays.  The next run of the same user finds that nobody holds its lock, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from keyturn import errors
from keyturn.kernel.secret import random_base62

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "keyturn-run-"
_LOCK: Final = ".lock"


def private_places(runtime_dir: str | None) -> list[Path]:
    """Return where a private folder may be made, best first."""
    named = [Path("/dev/shm"), *([Path(runtime_dir)] if runtime_dir else []), Path(tempfile.gettempdir())]  # noqa: S108 -- memory, in a 0700 folder
    return [place for place in named if place.is_dir() and os.access(place, os.W_OK | os.X_OK)]


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in one step; raises ConfigError when that is not possible."""
    fresh = path.with_name(f".{path.name}.{random_base62(8)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _cannot(path, error) from None


@final
class PrivateFolder:
    """A folder of values; `close` removes it."""

    def __init__(self, path: Path, lock: int) -> None:
        """Not for callers: use `make` or `at`."""
        self.path = path
        self._lock = lock
        self._written: set[str] = set()

    @classmethod
    def make(cls, places: list[Path]) -> PrivateFolder:
        """Make a new one in the first place, and remove what killed runs left there; raises ConfigError."""
        for place in places:
            _sweep(place)
        if not places:
            raise errors.ConfigError("there is no place for private files", hint="name one: --files DIR")
        # Under this name nobody sweeps it before its lock is held.
        folder = cls.at(places[0] / f".{PREFIX}{random_base62(16)}")
        folder.path = folder.path.rename(places[0] / folder.path.name[1:])
        return folder

    @classmethod
    def at(cls, path: Path) -> PrivateFolder:
        """Take a folder that does not exist or is empty and this user's alone; raises ConfigError."""
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise errors.ConfigError(
                    f"{str(path)!r} is not a folder of this user alone", hint=f"chmod 700 {path}, or name another"
                )
            if any(path.iterdir()) and not _left_behind(path):
                raise errors.ConfigError(f"{str(path)!r} is not empty", hint="it is removed at the end; name another")
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _cannot(path, error) from None
        return cls(path, lock)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write these files, each in one step, and remove those of before that are not among them.

        Raises InputError, and writes nothing, for a name that leads out of the folder.
        """
        for name in files:
            # Names of fields are chosen by whoever writes the secret.
            if any(part in {"", ".", ".."} or "\0" in part for part in name.split("/")):
                raise errors.InputError(f"{name[:120]!r} cannot be the name of a file", hint="--file NAME=PATH#FIELD")
        for name, content in files.items():
            target = self.path / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(target, content)
        for name in self._written - set(files):
            (self.path / name).unlink(missing_ok=True)
        self._written = set(files)

    def close(self) -> None:
        """Remove the folder and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _left_behind(path: Path) -> bool:
    """Empty a folder that a killed run left, and say whether it was one."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _sweep(place: Path) -> None:
    for path in place.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and _left_behind(path):
                path.rmdir()


def _cannot(path: Path, error: OSError) -> errors.ConfigError:
    return errors.ConfigError(f"{str(path)!r} cannot be written: {os.strerror(error.errno or 0)}")
