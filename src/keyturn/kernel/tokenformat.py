"""The issued key, format v1: minted here, recognised here, digested here.

    acme_live_3kTq9ZbW1xYc8vN2...pL0aQ4sR7uT1mE5yG6hJ0Kd2
    |    |    |           |                    `-- check: 6 base62 characters
    |    |    |           `-- secret: 43 base62 characters from the system CSPRNG (256.03 bits)
    |    |    `-- id: 12 base62 characters, the public name of the secret version
    |    `-- tag of the environment: 2-16 of a-z0-9
    `-- prefix of the keyspace: 2-16 of a-z0-9, starting with a letter

The body (id, secret, check) is the part after the second and last `_`; its length is the format version: v1 is 61.
The check is CRC-32 (as in zlib) over every character before it, as a number in base62, most significant digit first,
padded with `0`.
It costs a microsecond and refuses junk and typing errors before any lookup; it is no protection against forgery.
The alphabet is `0-9A-Za-z`, in that order.

At rest only a digest is kept:

    digest = BLAKE2b-256(key = pepper of the keyspace, SHA-256(the whole presented key))

RFC 7693 defines keyed BLAKE2b, FIPS 180-4 SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from binascii import crc32
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

from keyturn.kernel.ids import VERSION_ID_LENGTH, VersionId, new_version_id
from keyturn.kernel.secret import BASE62, Secret, random_base62

PREFIX_PATTERN: Final = r"[a-z][a-z0-9]{1,15}"
TAG_PATTERN: Final = r"[a-z0-9]{2,16}"
SECRET_LENGTH: Final = 43
CHECK_LENGTH: Final = 6
BODY_LENGTH: Final = VERSION_ID_LENGTH + SECRET_LENGTH + CHECK_LENGTH
PEPPER_BYTES_MIN: Final = 32
PEPPER_BYTES_MAX: Final = 64

# ASCII classes and fullmatch: `\w` and `\d` take in other scripts, and `$` matches before a trailing newline.
_shape: Final = re.compile(f"{PREFIX_PATTERN}_{TAG_PATTERN}_[0-9A-Za-z]{{{BODY_LENGTH}}}").fullmatch
_prefix: Final = re.compile(PREFIX_PATTERN).fullmatch
_tag: Final = re.compile(TAG_PATTERN).fullmatch

# Two digits at a time: three look-ups in place of six divisions.
_PAIRS: Final = tuple(high + low for high in BASE62 for low in BASE62)
_PAIR: Final = 62**2
_TWO_PAIRS: Final = 62**4


class Minted(NamedTuple):
    """A new key, to be shown once, and the public id of its secret version."""

    version_id: VersionId
    key: Secret


class Parsed(NamedTuple):
    """The public parts of a well-formed key."""

    prefix: str
    tag: str
    version_id: VersionId


def mint(prefix: str, tag: str) -> Minted:
    """Make a key for the keyspace prefix and environment tag; raises ValueError when either is malformed."""
    check_prefix(prefix)
    check_tag(tag)
    version_id = new_version_id()
    unchecked = f"{prefix}_{tag}_{version_id}{random_base62(SECRET_LENGTH)}"
    return Minted(version_id, Secret(unchecked + _check_of(unchecked)))


def version_id_of(presented: str) -> str | None:
    """Return the secret version that a presented key names, or None when shape or check is wrong.

    Never raises, whatever the text.
    A result proves nothing: the digest has to be compared.
    """
    if _shape(presented) is None:
        return None
    crc = crc32(presented[:-6].encode())
    middle = crc // _PAIR
    if presented[-6:] != _PAIRS[crc // _TWO_PAIRS] + _PAIRS[middle % _PAIR] + _PAIRS[crc % _PAIR]:
        return None
    return presented[-61:-49]


def parse(presented: str) -> Parsed | None:
    """Return the public parts of a presented key, or None when shape or check is wrong; never raises."""
    version_id = version_id_of(presented)
    if version_id is None:
        return None
    prefix, tag, _ = presented.split("_")
    return Parsed(prefix, tag, VersionId(version_id))


def check_prefix(text: str) -> None:
    """Raise ValueError unless the text can be the prefix of a keyspace."""
    if _prefix(text) is None:
        raise ValueError(f"expected a prefix of 2-16 of a-z0-9 starting with a letter, found {text[:32]!r}")


def check_tag(text: str) -> None:
    """Raise ValueError unless the text can be the tag of an environment."""
    if _tag(text) is None:
        raise ValueError(f"expected a tag of 2-16 of a-z0-9, found {text[:32]!r}")


def sha256(presented: str) -> bytes:
    """Return SHA-256 of a presented key of any shape, as UTF-8; never raises."""
    # surrogatepass: keys of foreign shape reach this too, and an encoding error would hold the key.
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()


def digest(pepper: bytes, presented_sha256: bytes) -> bytes:
    """Return the digest kept at rest: BLAKE2b-256 of the SHA-256, keyed with the pepper of the keyspace.

    Raises ValueError when the pepper is not 32-64 bytes; an empty one would be no key at all.
    """
    if PEPPER_BYTES_MIN <= len(pepper) <= PEPPER_BYTES_MAX:
        return hashlib.blake2b(presented_sha256, digest_size=32, key=pepper).digest()
    raise ValueError(f"expected a pepper of 32-64 bytes, found {len(pepper)}")


def proves(presented: str, pepper: bytes, known: bytes) -> bool:
    """Tell whether a presented key has the digest that is known, in a time that does not depend on either.

    Raises ValueError as `digest` does.
    """
    if not PEPPER_BYTES_MIN <= len(pepper) <= PEPPER_BYTES_MAX:
        raise ValueError(f"expected a pepper of 32-64 bytes, found {len(pepper)}")
    hashed = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
    return compare_digest(blake2b(hashed, digest_size=32, key=pepper).digest(), known)


def _check_of(unchecked: str) -> str:
    crc = crc32(unchecked.encode("ascii"))
    return _PAIRS[crc // _TWO_PAIRS] + _PAIRS[crc // _PAIR % _PAIR] + _PAIRS[crc % _PAIR]
