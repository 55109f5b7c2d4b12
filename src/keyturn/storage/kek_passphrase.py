"""The provider `passphrase`: root keys derived from a passphrase with Argon2id (RFC 9106).

    keyturn-kek-argon2id-v1 <kek id> <memory KiB> <passes> <lanes> <base64 salt> <base64 check>

One line for each root key in the file `kek-passphrase` of the data folder, the newest last.  The file holds nothing
secret: salt and parameters, and a hash that tells whether a passphrase is the right one, which a wrapped key would
tell as well.  Every server needs a copy.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from argon2.exceptions import Argon2Error
from argon2.low_level import Type, hash_secret_raw

from keyturn.errors import KekError
from keyturn.kernel import envelope
from keyturn.kernel.ids import is_id, new_id
from keyturn.kernel.secret import Secret, constant_time_equal, random_bytes
from keyturn.storage.kek_file import alone, create_private, read_private, readable, remove_line, replace_private
from keyturn.storage.kek_held import HeldKeks, decoded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keyturn.config import Settings

MAGIC: Final = "keyturn-kek-argon2id-v1"
FILE_NAME: Final = "kek-passphrase"
CHARACTERS_MIN: Final = 12

_MEMORY_KIB: Final = 65536
_PASSES: Final = 3
_LANES: Final = 4
_MEMORY_KIB_MAX: Final = 4 * 1024 * 1024
_PASSES_MAX: Final = 1000
_LANES_MAX: Final = 64
_SALT_BYTES: Final = 16
_CHECK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Derivation:
    """How one root key comes from its passphrase."""

    kek_id: str
    memory_kib: int
    passes: int
    lanes: int
    salt: bytes
    check: bytes

    def line(self) -> str:
        """Write it as a line of the file."""
        texts = (base64.b64encode(part).decode() for part in (self.salt, self.check))
        return " ".join((MAGIC, self.kek_id, str(self.memory_kib), str(self.passes), str(self.lanes), *texts)) + "\n"

    def derive(self, passphrase: Secret) -> Secret | None:
        """Derive the root key; None when the passphrase is another one."""
        key = _derive(passphrase, self.salt, self.memory_kib, self.passes, self.lanes)
        return Secret(key) if constant_time_equal(_check(key), self.check) else None


class PassphraseKek(HeldKeks):
    """Root keys derived from `KEYTURN_KEK_PASSPHRASE`, and older ones from `KEYTURN_KEK_PASSPHRASE_PREVIOUS`."""

    def __init__(self, path: Path, passphrases: Sequence[Secret], *keys: tuple[str, Secret]) -> None:
        """Hold derived root keys, and where their parameters are."""
        super().__init__(*keys)
        self._path = path
        self._passphrases = tuple(passphrases)

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> PassphraseKek:
        """Derive every root key of the file; with `create`, make the file if it is absent."""
        newest = settings.kek_passphrase
        if newest is None:
            message = "KEYTURN_KEK_PASSPHRASE is empty and KEYTURN_KEK_PROVIDER=passphrase asks for it"
            raise KekError(message, hint="set it, or KEYTURN_KEK_PASSPHRASE_FILE")
        previous = settings.kek_passphrase_previous
        passphrases = [newest] if previous is None else [newest, previous]
        path = settings.data / FILE_NAME
        with readable(path):
            if create and not path.exists():
                create_private(path, _new(newest)[0].line())
            found = _read(path)
        return cls(path, passphrases, *_opened(found, passphrases))

    def refresh(self) -> None:
        """Derive the root keys that the file has got since."""
        with readable(self._path):
            found = _read(self._path)
        new = [one for one in found if one.kek_id not in self._keys]
        derived = self._keys | dict(_opened(new, self._passphrases))
        self._keys = {one.kek_id: derived[one.kek_id] for one in found}

    def add(self) -> str:
        """Add a root key derived from `KEYTURN_KEK_PASSPHRASE` with a new salt; it seals from now on."""
        made, _ = _new(self._passphrases[0])
        with readable(self._path), alone(self._path):
            replace_private(self._path, "".join(one.line() for one in [*_read(self._path), made]))
        self.refresh()
        return made.kek_id

    def take(self, kek_id: str, keep: Path | None) -> bool:
        """Remove a line that is not the last; harmless when it is gone already."""
        with readable(self._path), alone(self._path):
            remove_line(self._path, {one.kek_id: one.line() for one in _read(self._path)}, kek_id, keep)
        self.refresh()
        return True


def _read(path: Path) -> list[Derivation]:
    lines = [line for line in read_private(path).splitlines() if line.strip()]
    return [_parsed(line, path) for line in lines or [""]]


def _parsed(line: str, path: Path) -> Derivation:
    parts = line.split()
    numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 9 else 0 for part in parts[2:5]]
    if len(parts) == 7 and parts[0] == MAGIC and is_id("kek", parts[1]):
        salt, check = decoded(parts[5]), decoded(parts[6])
        within = all(
            0 < number <= most for number, most in zip(numbers, (_MEMORY_KIB_MAX, _PASSES_MAX, _LANES_MAX), strict=True)
        )
        if within and len(salt) == _SALT_BYTES and len(check) == _CHECK_BYTES:
            return Derivation(parts[1], numbers[0], numbers[1], numbers[2], salt, check)
    message = f"{path} does not hold lines of the form `{MAGIC} kek_… <memory> <passes> <lanes> <salt> <check>`"
    raise KekError(message, hint="restore it from your own backup: without it the passphrase opens nothing")


def _opened(found: Sequence[Derivation], passphrases: Sequence[Secret]) -> list[tuple[str, Secret]]:
    keys: list[tuple[str, Secret]] = []
    for one in found:
        derived = (one.derive(passphrase) for passphrase in passphrases)
        key = next((key for key in derived if key is not None), None)
        if key is None:
            message = f"the passphrase is not the one of root key {one.kek_id}"
            hint = "set KEYTURN_KEK_PASSPHRASE to the right one, and KEYTURN_KEK_PASSPHRASE_PREVIOUS to the one before"
            raise KekError(message, hint=hint)
        keys.append((one.kek_id, key))
    return keys


def _new(passphrase: Secret) -> tuple[Derivation, Secret]:
    if len(passphrase.reveal()) < CHARACTERS_MIN:
        message = f"KEYTURN_KEK_PASSPHRASE has fewer than {CHARACTERS_MIN} characters"
        raise KekError(message, hint="use six words or more that were drawn at random")
    salt = random_bytes(_SALT_BYTES)
    key = _derive(passphrase, salt, _MEMORY_KIB, _PASSES, _LANES)
    return Derivation(new_id("kek", 0.0), _MEMORY_KIB, _PASSES, _LANES, salt, _check(key)), Secret(key)


def _derive(passphrase: Secret, salt: bytes, memory_kib: int, passes: int, lanes: int) -> bytes:
    try:
        return hash_secret_raw(passphrase.reveal_bytes(), salt, passes, memory_kib, lanes, envelope.KEY_BYTES, Type.ID)
    except (Argon2Error, MemoryError) as error:
        message = f"the passphrase could not be stretched with {memory_kib} KiB of memory"
        raise KekError(message, hint="give this server more memory", internal=type(error).__name__) from None


def _check(key: bytes) -> bytes:
    return hashlib.blake2b(b"keyturn kek check", key=key, digest_size=_CHECK_BYTES).digest()
