"""Root keys that this process holds in memory: their text form, and the provider `env`.

    keyturn-kek-v1 <kek id> <base64 of 32 bytes>

One line for each root key, the newest last.  The id is random and never derives from the key.  Keys are wrapped with
AES-KWP (RFC 5649).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from keyturn.errors import KekError
from keyturn.kernel import envelope
from keyturn.kernel.ids import is_id, new_id
from keyturn.kernel.secret import Secret
from keyturn.storage.kek import KekProvider, Wrapped

if TYPE_CHECKING:
    from keyturn.config import Settings

MAGIC: Final = "keyturn-kek-v1"
ORIGINAL: Final = "restore the original root key from your own backup"


class HeldKeks(KekProvider):
    """Root keys in memory, oldest first as in their text form."""

    def __init__(self, *keys: tuple[str, Secret]) -> None:
        """Hold root keys by id; the last one seals."""
        self._keys = dict(keys)

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> HeldKeks:
        """Not a provider by itself: a subclass knows where the keys are."""
        raise NotImplementedError

    @property
    def ids(self) -> tuple[str, ...]:
        """The newest first."""
        return tuple(reversed(self._keys))

    def wrap(self, key: bytes) -> Wrapped:
        """Wrap with AES-KWP."""
        keys = self._keys
        kek_id = next(reversed(keys))
        return Wrapped(kek_id, envelope.wrap(keys[kek_id].reveal_bytes(), key))

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Unwrap with AES-KWP."""
        key = self._keys.get(kek_id)
        if key is None:
            message = f"root key {kek_id} is wanted, but {' and '.join(self.ids)} was given"
            raise KekError(message, hint=f"provide root key {kek_id}")
        try:
            return envelope.unwrap(key.reveal_bytes(), wrapped)
        except envelope.EnvelopeError as error:
            message = f"root key {kek_id} does not open what is said to be wrapped under it"
            raise KekError(message, hint="restore the original root key") from error


class EnvKek(HeldKeks):
    """Root keys in `KEYTURN_KEK`, or in the file that `KEYTURN_KEK_FILE` names; never created here.

    The last line seals; the other lines, and those of `KEYTURN_KEK_PREVIOUS`, only open.
    """

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> EnvKek:  # noqa: ARG003 -- the port's signature
        """Read the variables."""
        if settings.kek is None:
            message = "KEYTURN_KEK is empty and KEYTURN_KEK_PROVIDER=env asks for it"
            raise KekError(message, hint="set it, or choose KEYTURN_KEK_PROVIDER=file")
        before: list[tuple[str, Secret]] = []
        if settings.kek_previous is not None:
            before = decode_all(settings.kek_previous.reveal(), source="KEYTURN_KEK_PREVIOUS")
        newest = decode_all(settings.kek.reveal(), source="KEYTURN_KEK")
        return cls(*unique([*before, *newest], source="KEYTURN_KEK and KEYTURN_KEK_PREVIOUS"))

    def add(self) -> str:
        """Not done here: the operator's secret store has them."""
        raise KekError(
            "the root keys are in KEYTURN_KEK, which only you can set",
            hint="add the line that `keyturn root-key generate` prints at the end of it",
        )


def generate() -> str:
    """Make a new root key in its text form, for a secret store of the operator's."""
    return encode(*new_key())


def new_key() -> tuple[str, Secret]:
    """Make a new root key."""
    return new_id("kek", 0.0), Secret(envelope.new_key())


def encode(kek_id: str, key: Secret) -> str:
    """Write a root key in its text form."""
    return f"{MAGIC} {kek_id} {base64.b64encode(key.reveal_bytes()).decode()}\n"


def decode(text: str, *, source: str) -> tuple[str, Secret]:
    """Read the text form of one root key; the error names the source and never the content."""
    parts = text.split()
    if len(parts) == 3 and parts[0] == MAGIC and is_id("kek", parts[1]):
        key = decoded(parts[2])
        if len(key) == envelope.KEY_BYTES:
            return parts[1], Secret(key)
    message = f"{source} does not hold a root key of the form `{MAGIC} kek_… <base64 of 32 bytes>`"
    raise KekError(message, hint=ORIGINAL)


def decode_all(text: str, *, source: str) -> list[tuple[str, Secret]]:
    """Read one root key a line, oldest first, and at least one."""
    lines = [line for line in text.splitlines() if line.strip()]
    return unique([decode(line, source=source) for line in lines or [""]], source=source)


def unique(keys: list[tuple[str, Secret]], *, source: str) -> list[tuple[str, Secret]]:
    """Return the keys without repetitions; raises KekError when one id names two keys."""
    kept: dict[str, Secret] = {}
    for kek_id, key in keys:
        if kept.setdefault(kek_id, key) != key:
            raise KekError(f"{source} hold two root keys of the id {kek_id}", hint=ORIGINAL)
        kept[kek_id] = kept.pop(kek_id)
    return list(kept.items())


def decoded(text: str) -> bytes:
    """Read base64; nothing for what is none."""
    # Returns nothing instead of raising: the error, even as a context, would hold the text.
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
