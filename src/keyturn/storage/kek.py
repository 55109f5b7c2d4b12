"""KEK providers: where the root key comes from (entry points `keyturn.kek`).

The KEK is the one secret outside the database.  Its text form, in the file or in the variable, is

    keyturn-kek-v1 <kek id> <base64 of 32 bytes>

The id is random and never derives from the key.  A provider wraps and unwraps workspace keys; those that hold
the key in memory do so with AES-KWP (RFC 5649).
"""

from __future__ import annotations

import base64
import binascii
import os
from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from keyturn.errors import KekError
from keyturn.kernel import envelope
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from keyturn.config import Settings

MAGIC = "keyturn-kek-v1"


class KekProvider(ABC):
    """Holds or reaches one KEK; `id` names it wherever something is wrapped under it."""

    id: str

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> KekProvider:
        """Find the KEK; make a new one only if `create` (there is no data yet).  Raises KekError."""

    @abstractmethod
    def wrap(self, key: bytes) -> bytes:
        """Wrap a 32-byte key."""

    @abstractmethod
    def unwrap(self, wrapped: bytes) -> bytes:
        """Unwrap what `wrap` made; raises KekError when it was wrapped under another key."""


class _HeldKek(KekProvider):
    def __init__(self, kek_id: str, key: Secret) -> None:
        self.id = kek_id
        self._key = key

    def wrap(self, key: bytes) -> bytes:
        """Wrap with AES-KWP."""
        return envelope.wrap(self._key.reveal_bytes(), key)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Unwrap with AES-KWP."""
        try:
            return envelope.unwrap(self._key.reveal_bytes(), wrapped)
        except envelope.EnvelopeError as error:
            message = f"root key {self.id} does not open what is said to be wrapped under it"
            raise KekError(message, hint="restore the original root key") from error


def encode(kek_id: str, key: Secret) -> str:
    """Write a KEK in its text form."""
    return f"{MAGIC} {kek_id} {base64.b64encode(key.reveal_bytes()).decode()}\n"


def decode(text: str, *, source: str) -> tuple[str, Secret]:
    """Read a KEK's text form; the error names the source and never the content."""
    parts = text.split()
    try:
        magic, kek_id, encoded = parts
        key = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        magic, kek_id, key = "", "", b""
    if magic != MAGIC or not kek_id.startswith("kek_") or len(key) != 32:
        message = f"{source} does not hold a root key of the form `{MAGIC} kek_… <base64 of 32 bytes>`"
        raise KekError(message, hint="restore the original root key from your own backup")
    return kek_id, Secret(key)


class FileKek(_HeldKek):
    """The KEK in a file of mode 0600, by default `kek` in the data folder."""

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> FileKek:
        """Read the file; with `create`, make it if it is absent."""
        path = settings.kek_file or settings.data / "kek"
        if not path.exists():
            if not create:
                message = f"the root key file {path} is missing"
                raise KekError(message, hint="restore it from your own backup; backups of Keyturn never contain it")
            _write_private(path, encode(new_id("kek", 0.0), Secret(envelope.new_key())))
        if path.stat().st_mode & 0o077:
            message = f"the root key file {path} can be read by others"
            raise KekError(message, hint=f"chmod 600 {path}")
        return cls(*decode(path.read_text("ascii", errors="replace"), source=str(path)))


class EnvKek(_HeldKek):
    """The KEK in `KEYTURN_KEK`, or in the file that `KEYTURN_KEK_FILE` names; never created here."""

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> EnvKek:  # noqa: ARG003 -- the port's signature
        """Read the variable."""
        if settings.kek is None:
            message = "KEYTURN_KEK is empty and KEYTURN_KEK_PROVIDER=env asks for it"
            raise KekError(message, hint="set it, or choose KEYTURN_KEK_PROVIDER=file")
        return cls(*decode(settings.kek.reveal(), source="KEYTURN_KEK"))


def load_provider(settings: Settings, *, create: bool) -> KekProvider:
    """Load the provider the settings name; raises KekError when there is none of that name."""
    found = {point.name: point for point in entry_points(group="keyturn.kek")}
    if settings.kek_provider not in found:
        message = f"no KEK provider is named {settings.kek_provider!r}; there are: {', '.join(sorted(found))}"
        raise KekError(message, hint="set KEYTURN_KEK_PROVIDER to one of them")
    provider: type[KekProvider] = found[settings.kek_provider].load()
    return provider.from_settings(settings, create=create)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
