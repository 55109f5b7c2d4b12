"""Fingerprints of values: equal ones are found without keeping or showing any.

    fingerprint = keyed BLAKE2b-256(key, SHA-256(value))               key: of the workspace, purpose `fingerprint`
                  of a value of less than 20 characters: keyed BLAKE2b-256(key, "short" and SHA-256(value))
    group       = keyed BLAKE2b-128(key, "group" and the fingerprint)  what a report shows

The SHA-256 is there so that a scanner can ask about a value without sending it.  Who asks so can test guesses, so a
short value has a fingerprint that no SHA-256 alone leads to, whatever length is claimed for it.

Only texts of at least 8 characters have one: whoever holds the key could guess shorter ones, and short texts such as
`true` or a port are equal by chance.  Space around a value does not count, so that a value that came from a file with
a line's end equals the one that was typed.  Texts inside lists and objects count; references do not, since they hold
no value.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert

from keyturn.kernel.secret import BASE62
from keyturn.storage.schema import secret_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.access.door import Operation
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.model import Secret

PURPOSE: Final = "fingerprint"
KEY_PATH: Final = "secrets"
CHARACTERS_MIN: Final = 8
MATCHED_CHARACTERS_MIN: Final = 20
"""How many characters a value has at least that can be found by its SHA-256."""
PER_VERSION_MAX: Final = 1024
"""How many texts of one version have a fingerprint; the first ones count."""

_GROUP_BYTES: Final = 16
_GROUP: Final = b"group\0"
_SHORT: Final = b"short\0"
_REFERENCE: Final = "${secret:"

# Built once: every write of a version runs it.
_INSERT: Final = insert(secret_fingerprint)


class Fingerprints:
    """Makes fingerprints under one key for each workspace, which is made when it is first needed."""

    def __init__(self, keyring: Keyring) -> None:
        """Open the keys with this keyring."""
        self._keyring = keyring

    def store(self, op: Operation, secret: Secret, sequence: int, fields: Mapping[str, object]) -> None:
        """Store the fingerprints of a new version's fields, in the unit of work that writes it."""
        texts = list(_bounded(fields))
        if not texts:
            return
        key = self._key(op.connection, secret.workspace) or self._make(op.connection, secret.workspace, op.now)
        op.connection.execute(
            _INSERT,
            [
                {
                    "workspace": secret.workspace,
                    "fingerprint": fingerprint(key, text),
                    "secret": secret.id,
                    "sequence": sequence,
                    "field": name,
                }
                for name, text in texts
            ],
        )

    def group_of(self, connection: Connection, workspace: str, found: list[bytes]) -> list[str]:
        """Return a name for each fingerprint, from which the fingerprint cannot be told."""
        key = self._key(connection, workspace)
        if key is None:
            return ["" for _ in found]
        return [_group(key, one) for one in found]

    def of_digests(self, connection: Connection, workspace: str, digests: Sequence[bytes]) -> list[bytes]:
        """Return the fingerprints of long values by their SHA-256; empty when the workspace has none at all."""
        key = self._key(connection, workspace)
        return [] if key is None else [_of_digest(key, digest) for digest in digests]

    def _key(self, connection: Connection, workspace: str) -> bytes | None:
        # Which key it is is not kept: one that was made in a transaction that is undone must not be used by the next.
        held = self._keyring.all(connection, workspace, PURPOSE, KEY_PATH, keep=True)
        return held[0].value if held else None

    def _make(self, connection: Connection, workspace: str, now: float) -> bytes:
        return self._keyring.create(connection, workspace, PURPOSE, KEY_PATH, now).value


def fingerprint(key: bytes, text: str) -> bytes:
    """Return the fingerprint of a text."""
    stripped = text.strip()
    digest = hashlib.sha256(stripped.encode("utf-8", "surrogatepass")).digest()
    return _of_digest(key, digest if len(stripped) >= MATCHED_CHARACTERS_MIN else _SHORT + digest)


def _of_digest(key: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(digest, digest_size=32, key=key).digest()


def texts_of(fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Return the texts that have a fingerprint, each with its place: the field, and `/` before each step inside it."""
    for name, value in fields.items():
        yield from _texts(name, value)


def _texts(place: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if len(value.strip()) >= CHARACTERS_MIN and _REFERENCE not in value:
            yield place, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(f"{place}/{number}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(f"{place}/{name}", item)


def _bounded(fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for place, text in texts_of(fields):
        shown = place.replace("\0", "")[:512]
        if shown not in seen:
            seen.add(shown)
            yield shown, text
        if len(seen) >= PER_VERSION_MAX:
            return


def _group(key: bytes, found: bytes) -> str:
    number = int.from_bytes(hashlib.blake2b(_GROUP + found, digest_size=_GROUP_BYTES, key=key).digest(), "big")
    digits = []
    while number:
        number, digit = divmod(number, len(BASE62))
        digits.append(BASE62[digit])
    return "reuse_" + "".join(digits)
