"""Sealed values: what lies in the database of a secret, and how it opens.

    KEK --(KEK provider)--> workspace key --(AES-KWP)--> data key --(AES-256-GCM)--> plaintext

Sealed value, format 1:

    offset  size  field
    0       4     magic "KTEV"
    4       1     format version, 1
    5       1     n, length of the workspace key id
    6       n     workspace key id, 1-64 of A-Za-z0-9_.-
    6+n     40    data key (32 bytes), wrapped under the workspace key with AES-KWP (RFC 5649, NIST SP 800-38F)
    46+n    12    nonce, random
    58+n    m+16  AES-256-GCM ciphertext and tag (NIST SP 800-38D)

    associated data = bytes 0 to 46+n, then purpose, workspace and path, each as
                      length (4 bytes, big-endian) and UTF-8, then version (8 bytes, big-endian)

The data key is made for one sealing and used once.
Associated data binds the value to its place, so a ciphertext moved to another row does not open.
AES-KWP needs no nonce, so a workspace key wraps without a counter.
Re-wrapping a workspace key under another KEK leaves every sealed value as it is.

Value sealed under a phrase (an idempotent response under its bearer token), format 1:

    offset  size  field
    0       4     magic "KTPH"
    4       1     format version, 1
    5       32    salt, random
    37      12    nonce, random
    49      m+16  AES-256-GCM ciphertext and tag; key = HKDF-SHA256(secret, salt, info = context) (RFC 5869)

    associated data = bytes 0 to 37
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from keyturn.errors import IntegrityError
from keyturn.kernel.secret import random_bytes

KEY_BYTES: Final = 32

_MAGIC: Final = b"KTEV"
_PHRASE_MAGIC: Final = b"KTPH"
_FORMAT: Final = 1
_FIXED_BYTES: Final = 6
_WRAPPED_BYTES: Final = 40
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SALT_BYTES: Final = 32
_PHRASE_HEADER_BYTES: Final = len(_PHRASE_MAGIC) + 1 + _SALT_BYTES
_VERSION_END: Final = 2**64
_KEY_ID: Final = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_CLOSED: Final = "the sealed value did not open: it was altered, belongs elsewhere, or was sealed under another key"


class EnvelopeError(IntegrityError):
    """A sealed value or wrapped key does not open, or is no such thing; never says anything of its content."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a sealed value says of itself in the open; unproven until it was opened."""

    format: int
    workspace_key_id: str
    wrapped: bytes
    """Its data key, under the workspace key."""


def new_key() -> bytes:
    """Return a new 256-bit key from the system CSPRNG."""
    return random_bytes(KEY_BYTES)


def wrap(kek: bytes, key: bytes) -> bytes:
    """Wrap a key under a 256-bit key with AES-KWP; the same input gives the same output."""
    _require_key(kek)
    if not key:
        raise ValueError("expected a key to wrap, found no bytes")
    return aes_key_wrap_with_padding(kek, key)


def unwrap(kek: bytes, wrapped: bytes) -> bytes:
    """Unwrap a key; raises EnvelopeError when it was altered or wrapped under another key."""
    _require_key(kek)
    try:
        return aes_key_unwrap_with_padding(kek, wrapped)
    except InvalidUnwrap:
        raise EnvelopeError("the wrapped key did not open: it was altered, or wrapped under another key") from None


def seal(
    workspace_key: bytes,
    workspace_key_id: str,
    *,
    purpose: str,
    workspace: str,
    path: str,
    version: int,
    plaintext: bytes,
) -> bytes:
    """Seal a value for one place: it opens only with the same purpose, workspace, path and version."""
    key_id = workspace_key_id.encode()
    if _KEY_ID.fullmatch(key_id) is None:
        raise ValueError(f"expected a key id of 1-64 of A-Za-z0-9_.-, found {workspace_key_id[:80]!r}")
    place = _place(purpose, workspace, path, version)
    data_key = new_key()
    opening = _MAGIC + bytes((_FORMAT, len(key_id))) + key_id + wrap(workspace_key, data_key)
    nonce = random_bytes(_NONCE_BYTES)
    return opening + nonce + AESGCM(data_key).encrypt(nonce, plaintext, opening + place)


def open_sealed(
    workspace_key: bytes,
    blob: bytes,
    *,
    purpose: str,
    workspace: str,
    path: str,
    version: int,
) -> bytes:
    """Open a sealed value; raises EnvelopeError when key, place or any byte is not what it was sealed with."""
    cipher = data_cipher(workspace_key, header(blob).wrapped)
    return open_under(cipher, blob, purpose=purpose, workspace=workspace, path=path, version=version)


def data_cipher(workspace_key: bytes, wrapped: bytes) -> AESGCM:
    """Unwrap the data key of a sealed value, ready to open it; raises EnvelopeError as `open_sealed` does.

    It opens nothing but that one value, in its place.  Whoever keeps it keeps it no longer than the workspace key.
    """
    _require_key(workspace_key)
    try:
        return AESGCM(unwrap(workspace_key, wrapped))
    except (EnvelopeError, ValueError):
        raise EnvelopeError(_CLOSED) from None


def open_under(cipher: AESGCM, blob: bytes, *, purpose: str, workspace: str, path: str, version: int) -> bytes:
    """Open a sealed value with its data key, which `data_cipher` gave; raises EnvelopeError as `open_sealed` does."""
    start = _wrapped_start(blob) + _WRAPPED_BYTES
    sealed = start + _NONCE_BYTES
    bound = blob[:start] + _place(purpose, workspace, path, version)
    try:
        return cipher.decrypt(blob[start:sealed], blob[sealed:], bound)
    except InvalidTag:
        # One answer for every cause, so that it tells an attacker nothing.
        raise EnvelopeError(_CLOSED) from None


def header(blob: bytes) -> Header:
    """Read what a sealed value says of itself; raises EnvelopeError when it is no sealed value of a known format."""
    start = _wrapped_start(blob)
    return Header(_FORMAT, blob[_FIXED_BYTES:start].decode("ascii"), blob[start : start + _WRAPPED_BYTES])


def seal_under_phrase(secret: bytes, context: bytes, plaintext: bytes) -> bytes:
    """Seal a short-lived value under a high-entropy secret and a public context.

    For bearer tokens, never for passwords: nothing slows a guess down.
    """
    opening = _PHRASE_MAGIC + bytes((_FORMAT,)) + random_bytes(_SALT_BYTES)
    nonce = random_bytes(_NONCE_BYTES)
    return opening + nonce + _phrase_cipher(secret, context, opening).encrypt(nonce, plaintext, opening)


def open_under_phrase(secret: bytes, context: bytes, blob: bytes) -> bytes:
    """Open what `seal_under_phrase` sealed; raises EnvelopeError when secret, context or any byte is another."""
    if len(blob) < _PHRASE_HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES or not blob.startswith(_PHRASE_MAGIC):
        raise EnvelopeError("expected a value sealed under a phrase, found other bytes")
    _require_format(blob[len(_PHRASE_MAGIC)])
    opening = blob[:_PHRASE_HEADER_BYTES]
    nonce = blob[_PHRASE_HEADER_BYTES : _PHRASE_HEADER_BYTES + _NONCE_BYTES]
    sealed = blob[_PHRASE_HEADER_BYTES + _NONCE_BYTES :]
    try:
        return _phrase_cipher(secret, context, opening).decrypt(nonce, sealed, opening)
    except InvalidTag:
        raise EnvelopeError(_CLOSED) from None


def _phrase_cipher(secret: bytes, context: bytes, opening: bytes) -> AESGCM:
    if not secret:
        raise ValueError("expected a secret to seal under, found no bytes")
    salt = opening[-_SALT_BYTES:]
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=context).derive(secret))


def _wrapped_start(blob: bytes) -> int:
    """Return where the wrapped data key begins, having checked everything before and the least length after."""
    if len(blob) < _FIXED_BYTES or not blob.startswith(_MAGIC):
        raise EnvelopeError("expected a sealed value, found other bytes")
    _require_format(blob[4])
    start = _FIXED_BYTES + blob[5]
    if len(blob) < start + _WRAPPED_BYTES + _NONCE_BYTES + _TAG_BYTES:
        raise EnvelopeError(f"expected a whole sealed value, found it cut off after {len(blob)} bytes")
    if _KEY_ID.fullmatch(blob, _FIXED_BYTES, start) is None:
        raise EnvelopeError("expected a workspace key id in the sealed value, found other bytes")
    return start


def _place(purpose: str, workspace: str, path: str, version: int) -> bytes:
    if not 0 <= version < _VERSION_END:
        raise ValueError(f"expected a version between 0 and 2**64 - 1, found {version}")
    fields = [part.encode() for part in (purpose, workspace, path)]
    return b"".join(struct.pack(">I", len(field)) + field for field in fields) + struct.pack(">Q", version)


def _require_format(found: int) -> None:
    if found != _FORMAT:
        raise EnvelopeError(f"expected sealed value format {_FORMAT}, found {found}")


def _require_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"expected a key of {KEY_BYTES} bytes, found {len(key)}")
