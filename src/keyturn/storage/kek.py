"""KEK providers: where the root key comes from (entry points `keyturn.kek`).

The KEK is the one secret outside the database.  Its text form, in the file or in the variable, is

    keyturn-kek-v1 <kek id> <base64 of 32 bytes>

The id is random and never derives from the key.  A provider wraps and unwraps workspace keys; those that hold
the key in memory do so with AES-KWP (RFC 5649).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from keyturn.errors import KekError
from keyturn.kernel import envelope
from keyturn.kernel.ids import is_id, new_id
from keyturn.kernel.secret import Secret, random_base62

if TYPE_CHECKING:
    from collections.abc import Sequence
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


def generate() -> str:
    """Make a new KEK in its text form, for a secret store of the operator's."""
    return encode(new_id("kek", 0.0), Secret(envelope.new_key()))


def encode(kek_id: str, key: Secret) -> str:
    """Write a KEK in its text form."""
    return f"{MAGIC} {kek_id} {base64.b64encode(key.reveal_bytes()).decode()}\n"


def decode(text: str, *, source: str) -> tuple[str, Secret]:
    """Read a KEK's text form; the error names the source and never the content."""
    parts = text.split()
    if len(parts) == 3 and parts[0] == MAGIC and is_id("kek", parts[1]):
        key = _decoded(parts[2])
        if len(key) == envelope.KEY_BYTES:
            return parts[1], Secret(key)
    message = f"{source} does not hold a root key of the form `{MAGIC} kek_… <base64 of 32 bytes>`"
    raise KekError(message, hint="restore the original root key from your own backup")


def _decoded(text: str) -> bytes:
    # Returns nothing instead of raising: the error, even as a context, would hold the text.
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""


class FileKek(_HeldKek):
    """The KEK in a file of mode 0600, by default `kek` in the data folder."""

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> FileKek:
        """Read the file; with `create`, make it if it is absent."""
        path = settings.kek_file or settings.data / "kek"
        try:
            if create and not path.exists():
                _write_private(path, generate())
            text = _read_private(path)
        except FileNotFoundError:
            message = f"the root key file {path} is missing"
            raise KekError(
                message, hint="restore it from your own backup; backups of Keyturn never contain it"
            ) from None
        except OSError as error:
            message = f"the root key file {path} cannot be read or written"
            raise KekError(message, hint="check its owner and mode", internal=type(error).__name__) from error
        return cls(*decode(text, source=str(path)))


class EnvKek(_HeldKek):
    """The KEK in `KEYTURN_KEK`, or in the file that `KEYTURN_KEK_FILE` names; never created here."""

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> EnvKek:  # noqa: ARG003 -- the port's signature
        """Read the variable."""
        if settings.kek is None:
            message = "KEYTURN_KEK is empty and KEYTURN_KEK_PROVIDER=env asks for it"
            raise KekError(message, hint="set it, or choose KEYTURN_KEK_PROVIDER=file")
        return cls(*decode(settings.kek.reveal(), source="KEYTURN_KEK"))


def load_provider(settings: Settings, *, create: bool, wanted: Sequence[str] = ()) -> KekProvider:
    """Load the provider the settings name.

    `wanted` are the ids that the data is sealed under (see `keyring.wanted_keks`); an error names them, and nothing
    is created when there are any.  Raises KekError when there is no provider of that name, or it finds no KEK.
    """
    found = {point.name: point for point in entry_points(group="keyturn.kek")}
    if settings.kek_provider not in found:
        message = f"no KEK provider is named {settings.kek_provider!r}; there are: {', '.join(sorted(found))}"
        raise KekError(message, hint="set KEYTURN_KEK_PROVIDER to one of them")
    provider: type[KekProvider] = found[settings.kek_provider].load()
    try:
        return provider.from_settings(settings, create=create and not wanted)
    except KekError as error:
        if not wanted:
            raise
        message = f"{error}; the data is sealed under root key {' and '.join(wanted)}"
        raise KekError(message, hint=error.hint, internal=error.internal) from error


def _read_private(path: Path) -> str:
    with path.open(encoding="ascii", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            message = f"the root key file {path} can be read by others"
            raise KekError(message, hint=f"chmod 600 {path}")
        return file.read(1000)


def _write_private(path: Path, text: str) -> None:
    """Write a new file whole or not at all; one that another process made meanwhile is left as it is."""
    waiting = path.with_name(f"{path.name}.{random_base62(8)}")
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(waiting, path)
    finally:
        waiting.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
