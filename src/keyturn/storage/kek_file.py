"""The provider `file`: root keys in a file of mode 0600, by default `kek` in the data folder.

One line for each root key (see `kek_held`); the last one seals.  The file is read again before a key is wrapped and
when an unknown root key is met, so running servers follow a rotation.  It is only ever replaced as a whole: whoever
reads it, or loses power, has the lines of before or those of after.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from keyturn.errors import KekError
from keyturn.kernel.secret import random_base62
from keyturn.storage.kek_held import HeldKeks, decode_all, encode, generate, new_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyturn.config import Settings
    from keyturn.kernel.secret import Secret
    from keyturn.storage.kek import Wrapped

_CHARACTERS_MAX: Final = 65536
_BACKUP: Final = "restore it from your own backup; backups of Keyturn never contain it"


class FileKek(HeldKeks):
    """Root keys in a file that only its owner may read."""

    def __init__(self, path: Path, *keys: tuple[str, Secret]) -> None:
        """Hold what was read from a file."""
        super().__init__(*keys)
        self.path = path

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> FileKek:
        """Read the file; with `create`, make it if it is absent."""
        path = settings.kek_file or settings.data / "kek"
        with readable(path):
            if create and not path.exists():
                create_private(path, generate())
            return cls(path, *_read(path))

    def wrap(self, key: bytes) -> Wrapped:
        """Wrap under the last line as the file is now."""
        self.refresh()
        return super().wrap(key)

    def refresh(self) -> None:
        """Read the file again."""
        with readable(self.path):
            self._keys = dict(_read(self.path))

    def add(self) -> str:
        """Add a line; it seals from now on."""
        kek_id, key = new_key()
        with readable(self.path), alone(self.path):
            keys = [*_read(self.path), (kek_id, key)]
            replace_private(self.path, "".join(encode(*one) for one in keys))
        self.refresh()
        return kek_id

    def take(self, kek_id: str, keep: Path | None) -> bool:
        """Remove a line that is not the last; harmless when it is gone already."""
        with readable(self.path), alone(self.path):
            lines = {found: encode(found, key) for found, key in _read(self.path)}
            remove_line(self.path, lines, kek_id, keep)
        self.refresh()
        return True


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file of a root key into a KekError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise KekError(f"the root key file {path} is missing", hint=_BACKUP) from None
    except OSError as error:
        message = f"the root key file {path} cannot be read or written"
        raise KekError(message, hint="check its owner and mode", internal=type(error).__name__) from error


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from changing files of this folder in the same way meanwhile."""
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read_private(path: Path) -> str:
    """Read a file that nobody else may read; raises KekError when others can."""
    with path.open(encoding="ascii", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            message = f"the root key file {path} can be read by others"
            raise KekError(message, hint=f"chmod 600 {path}")
        return file.read(_CHARACTERS_MAX)


def create_private(path: Path, text: str) -> None:
    """Write a new file whole or not at all; one that another process made meanwhile is left as it is."""
    waiting = _written(path, text, None)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(waiting, path)
    finally:
        waiting.unlink()
    _sync(path.parent)


def replace_private(path: Path, text: str) -> None:
    """Replace a file whole or not at all; it keeps its owner.

    What a link points to is replaced, not the link: others may have links to it too.
    """
    path = path.resolve()
    waiting = _written(path, text, path.stat())
    try:
        waiting.replace(path)
    except OSError:
        waiting.unlink()
        raise
    _sync(path.parent)


def remove_line(path: Path, lines: dict[str, str], kek_id: str, keep: Path | None) -> None:
    """Write the lines again without one, which is written to `keep` first; raises KekError for the last line."""
    if kek_id not in lines:
        return
    if kek_id == next(reversed(lines)):
        message = f"root key {kek_id} is the one that seals, so it is not removed from {path}"
        raise KekError(message, hint="make a newer one with `keyturn root-key rotate`, and rewrap")
    if keep is not None:
        create_private(keep, lines[kek_id])
        if read_private(keep) != lines[kek_id]:
            raise KekError(f"{keep} exists and holds something else", hint="name another file; nothing was removed")
    replace_private(path, "".join(line for found, line in lines.items() if found != kek_id))


def _read(path: Path) -> list[tuple[str, Secret]]:
    return decode_all(read_private(path), source=str(path))


def _written(path: Path, text: str, like: os.stat_result | None) -> Path:
    waiting = path.with_name(f"{path.name}.{random_base62(8)}")
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            # Run by root, the file would become unreadable for the server.
            if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fsync(file.fileno())
    except OSError:
        waiting.unlink()
        raise
    return waiting


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
