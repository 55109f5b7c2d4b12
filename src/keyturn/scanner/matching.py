"""Digests of candidates, by which a server tells whose they are; no value leaves the scanner.

    digest = SHA-256 of the value as text, without space around it

A key of Keyturn's format is named by its public version id beside its digest.  Anything else is a candidate for a
held secret from 20 characters on: a digest of a shorter text could be turned back into it by trying.

A held secret need not look like anything, so besides what rules find, every word of a document with a digit in it can
be a candidate: see `words`.  A word that is an assignment is one with its name and one without.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from keyturn.kernel.tokenformat import version_id_of
from keyturn.wire.leaks import HELD_LENGTH_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.kernel.secret import Secret
    from keyturn.scanner.model import Bytes

LENGTH_MAX: Final = 512

_WORD: Final = rb"[0-9A-Za-z!#$%*+\-./:=?@\\^_~]{20,512}"
_TRAILING: Final = b".:?!\\-"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a server is asked about: a digest, the version id of a key of ours, and the length of the value."""

    digest: str
    length: int
    version: str = ""


def candidate_of(secret: Secret) -> Candidate | None:
    """Return what may be asked about a value; None when it is neither a key of ours nor long enough."""
    try:
        text = secret.reveal().strip()
    except ValueError:
        return None  # bytes that are no text equal nothing that is held
    version = version_id_of(text) or ""
    if not version and len(text) < HELD_LENGTH_MIN:
        return None
    return Candidate(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), len(text), version)


def words(data: Bytes) -> Iterator[tuple[int, int]]:
    """Yield where the words of a document stand that may be a held secret: 20 to 512 characters with a digit.

    Words end at space, quotes, brackets, commas, semicolons, `&` and `|`.  Of `name=value` and `name:value` the value
    is a word too, and a word without the punctuation that it ends with.
    """
    for found in _pattern().finditer(data):
        start, end = found.span()
        yield from _parts(bytes(data[start:end]), start)


def _parts(word: bytes, start: int) -> Iterator[tuple[int, int]]:
    ends = {len(word), len(word.rstrip(_TRAILING))}
    begins = {0}
    for sign in (b"=", b":"):
        at = word.find(sign)
        while 0 <= at < len(word) - HELD_LENGTH_MIN and len(begins) < 4:
            begins.add(at + 1)
            at = word.find(sign, at + 1)
    for begin in begins:
        for end in ends:
            if end - begin >= HELD_LENGTH_MIN and any(0x30 <= one <= 0x39 for one in word[begin:end]):
                yield start + begin, start + end


@cache
def _pattern() -> Any:  # noqa: ANN401 -- re2 ships no types
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(_WORD, options)
