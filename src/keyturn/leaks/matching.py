"""Matching: digests in, issued keys and held secrets out.

    SHA-256 and version id    an issued key, by the digest that is stored of that version
    SHA-256                   an imported key, by its digest under each pepper; a held value, by its keyed fingerprint

A value that nobody here knows leaves nothing behind but its finding's fingerprint, which is keyed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from keyturn.keys.leaked import Claim, IssuedVersion, find_issued
from keyturn.leaks.model import Known
from keyturn.vault.held import HeldValue, find_held
from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import HELD_LENGTH_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring
    from keyturn.vault.fingerprints import Fingerprints

PURPOSE: Final = "finding"
KEY_PATH: Final = "findings"


@dataclass(frozen=True, slots=True)
class Question:
    """A value that was found, by what may be told of it."""

    sha256: bytes = field(repr=False)
    version: str | None
    length: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Whose a value is, with every place it is held at."""

    known: Known
    held: tuple[HeldValue, ...] = ()


class Matching:
    """Compares values with what a workspace has."""

    def __init__(self, keyring: Keyring, fingerprints: Fingerprints) -> None:
        """Open peppers and keys with the keyring; held values are found by the vault's fingerprints."""
        self._keyring = keyring
        self._fingerprints = fingerprints

    def match(
        self, connection: Connection, workspace: str, questions: Sequence[Question], now: float
    ) -> dict[int, Answer]:
        """Return the values that are known, by the place of the question."""
        claims = [Claim(one.sha256, one.version) for one in questions]
        issued = find_issued(connection, self._keyring, workspace, claims, now)
        answers = {place: Answer(known_issued(one)) for place, one in issued.items()}
        rest = [place for place, one in enumerate(questions) if place not in issued and one.length >= HELD_LENGTH_MIN]
        digests = [questions[place].sha256 for place in rest]
        for place, held in find_held(connection, self._fingerprints, workspace, digests, now).items():
            answers[rest[place]] = Answer(known_held(held[0]), held)
        return answers

    def fingerprints(
        self, connection: Connection, workspace: str, digests: Sequence[bytes], now: float | None
    ) -> list[bytes]:
        """Return the fingerprints that findings of these values have.

        Their key is made when there is none; with `now` None nothing is made, and the list is empty then.
        """
        held = self._keyring.all(connection, workspace, PURPOSE, KEY_PATH, keep=True)
        if held:
            key = held[0].value
        elif now is None:
            return []
        else:
            key = self._keyring.create(connection, workspace, PURPOSE, KEY_PATH, now).value
        return [hashlib.blake2b(digest, digest_size=32, key=key).digest() for digest in digests]


def known_issued(found: IssuedVersion) -> Known:
    """Return an issued version as what is known of a leaked value."""
    return Known(
        certainty=Certainty.OWN,
        works=found.works,
        state=found.state,
        environment=found.environment,
        owner=found.owner,
        keyspace=found.keyspace,
        key=found.key,
        version=found.version,
        system=found.system,
    )


def known_held(found: HeldValue) -> Known:
    """Return a held value as what is known of a leaked value."""
    return Known(
        certainty=Certainty.HELD,
        works=found.is_current,
        state=found.state,
        environment=found.environment,
        owner=found.owner,
        secret=found.secret,
        secret_path=found.path,
        sequence=found.sequence,
        field=found.field,
    )
