"""The cache: what a later run need not do again.  It holds no secret, ever, and losing it loses nothing but time.

The folder is its owner's alone, and each entry carries a digest: one that is torn, or changed, is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyturn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGEST_BYTES: Final = 32
_PERSON: Final = b"keyturn-cache-2"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\Z")


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return where the cache of a user is: below XDG_CACHE_HOME, or else the home folder's `.cache`."""
    given = environment.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "keyturn"
    home = environment.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".cache" / "keyturn"


class Cache:
    """A folder of named entries; several processes may use it at once."""

    __slots__ = ("folder",)

    def __init__(self, folder: Path) -> None:
        """Make the folder when there is none.

        Raises:
            ConfigError: it cannot be made, is no folder, belongs to somebody else, or others may write to it.

        """
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError as error:
            raise ConfigError(f"the cache folder {folder} cannot be made: {error.strerror}", field="cache") from None
        self._refuse_strangers(found)

    def _refuse_strangers(self, found: os.stat_result) -> None:
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"the cache {self.folder} is no folder", field="cache", hint="name another folder")
        if _is_strange(found):
            raise ConfigError(
                f"the cache folder {self.folder} belongs to another user",
                field="cache",
                hint="name a folder of your own, or scan without a cache",
            )
        if os.name == "posix" and found.st_mode & 0o077:
            try:
                self.folder.chmod(0o700)
            except OSError:
                raise ConfigError(f"others may use the cache folder {self.folder}", field="cache") from None

    def read(self, name: str) -> bytes | None:
        """Return an entry; None when there is none, or none that is whole."""
        flags = os.O_RDONLY
        for more in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
            flags |= getattr(os, more, 0)
        try:
            with os.fdopen(os.open(self._path(name), flags), "rb") as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or _is_strange(about):
                    return None
                digest, data = file.read(DIGEST_BYTES), file.read()
        except OSError:
            return None
        return data if digest == _digest(name, data) else None

    def write(self, name: str, data: bytes) -> bool:
        """Write an entry, whole or not at all; returns False when that cannot be done, which costs time alone."""
        path = self._path(name)
        part = path.with_name(f".{name}.{os.getpid()}.{threading.get_native_id()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(_digest(name, data))
                file.write(data)
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            return False
        return True

    def prune(self, prefix: str, keep: int) -> None:
        """Remove the entries of a prefix but for the last written."""
        found = []
        for path in self.folder.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(found, reverse=True)[keep:]:
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, name: str) -> Path:
        if _NAME.match(name) is None:
            raise ValueError(f"{name!r} is no name of an entry")
        return self.folder / name


def _is_strange(found: os.stat_result) -> bool:
    """Tell whether something belongs to another user."""
    return hasattr(os, "geteuid") and found.st_uid != os.geteuid()


def _digest(name: str, data: bytes) -> bytes:
    # SHA-256, because most processors have it, and a hook reads megabytes.
    made = hashlib.sha256(_PERSON + name.encode() + b"\0")
    made.update(data)
    return made.digest()
