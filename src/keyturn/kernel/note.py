"""Signed checkpoints of the audit tree: C2SP signed-note and tlog-checkpoint, Ed25519 (RFC 8032).

    keyturn.example/ws_0VPf            origin: which log
    20852163                           size of the tree, decimal
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2   root, base64 (shortened here)
                                       an empty line ends the signed text, whose newline is signed too
    — keyturn.example/ws_0VPf Az3grl…  em dash, key name, base64 of (key hash || signature)

    key hash = first 4 bytes of SHA-256(key name || 0x0A || 0x01 || public key)

Lines after the root are extensions: signed, and ignored here.
Signatures of other keys (witnesses) may follow and are ignored too.

Verifier key, to be handed out: `name+` key hash in hex `+` base64 of (0x01 || public key).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyturn.errors import IntegrityError
from keyturn.kernel.secret import random_bytes

KEY_BYTES: Final = 32
NOTE_CHARACTERS_MAX: Final = 1_000_000

_ED25519: Final = b"\x01"
_KEY_HASH_BYTES: Final = 4
_ROOT_BYTES: Final = 32
_SIGNATURES_MAX: Final = 100
_SIGNATURE_START: Final = "\N{EM DASH} "
_CHECKPOINT_LINES: Final = 3
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_SIZE_END: Final = 2**64
_KEY_HASH: Final = re.compile(r"[0-9a-f]{8}")
_FORBIDDEN: Final = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")


class NoteError(IntegrityError):
    """A note, checkpoint or verifier key is malformed, or no valid signature of the expected key is on it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states, signed: its name, how many leaves it has, and their root."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and the name it signs under."""

    name: str
    public_key: bytes


def new_signing_key() -> bytes:
    """Return a new Ed25519 private key, 32 bytes from the system CSPRNG."""
    return random_bytes(KEY_BYTES)


def public_key(private_key: bytes) -> bytes:
    """Return the public half of an Ed25519 private key, 32 bytes."""
    return _private(private_key).public_key().public_bytes_raw()


def checkpoint_body(origin: str, size: int, root: bytes) -> str:
    """Write the text that is signed; raises ValueError when a part cannot stand in it."""
    if not origin or "\n" in origin or _FORBIDDEN.search(origin):
        raise ValueError("expected an origin of one line without control characters")
    if not 0 <= size < _SIZE_END:
        raise ValueError(f"expected a tree size between 0 and 2**64 - 1, found {size}")
    if len(root) != _ROOT_BYTES:
        raise ValueError(f"expected a root of {_ROOT_BYTES} bytes, found {len(root)}")
    return f"{origin}\n{size}\n{_base64(root)}\n"


def sign(body: str, key_name: str, *private_keys: bytes) -> str:
    """Return the body as a note with a signature of each key, all under one name.

    Raises ValueError when body or name cannot be in a note, or there is no key.
    """
    _require_name(key_name)
    if not body.endswith("\n") or _FORBIDDEN.search(body):
        raise ValueError("expected a text that ends with a newline and holds no control characters")
    if not private_keys:
        raise ValueError("expected a key to sign with")
    return "".join([f"{body}\n", *(_signature(body, key_name, _private(one)) for one in private_keys)])


def verify(note: str, key_name: str, public_key: bytes) -> Checkpoint:
    """Return what the note states, once a signature of this key under this name proved it.

    Raises NoteError when the note is malformed, unsigned by the key, or the key's signature is wrong.
    """
    body, signatures = _split_note(note)
    key_hash = _key_hash(key_name, public_key)
    ours = [sealed[_KEY_HASH_BYTES:] for name, sealed in signatures if name == key_name and sealed[:4] == key_hash]
    if not ours:
        raise NoteError(f"expected a signature of {key_name!r}, found none of that key")
    try:
        verifier = Ed25519PublicKey.from_public_bytes(public_key)
        for signature in ours:
            verifier.verify(signature, body.encode())
    except (InvalidSignature, ValueError):
        raise NoteError(f"the signature of {key_name!r} does not fit the text") from None
    return _parse_checkpoint(body)


def encode_verifier_key(name: str, public_key: bytes) -> str:
    """Write a public key for those who verify: `name+keyhash+base64`."""
    _require_name(name)
    if len(public_key) != KEY_BYTES:
        raise ValueError(f"expected a public key of {KEY_BYTES} bytes, found {len(public_key)}")
    return f"{name}+{_key_hash(name, public_key).hex()}+{_base64(_ED25519 + public_key)}"


def parse_verifier_key(text: str) -> VerifierKey:
    """Read `name+keyhash+base64`; raises NoteError when it is malformed or the key hash does not fit."""
    # Base64 may hold a plus; name and key hash do not.
    name, _, rest = text.partition("+")
    key_hash, _, encoded = rest.partition("+")
    key = _decode_base64(encoded)
    if not _is_name(name) or _KEY_HASH.fullmatch(key_hash) is None or key is None:
        raise NoteError("expected a verifier key of the form name+keyhash+base64")
    if len(key) != 1 + KEY_BYTES or key[:1] != _ED25519:
        raise NoteError("expected an Ed25519 verifier key, found another kind")
    if _key_hash(name, key[1:]).hex() != key_hash:
        raise NoteError(f"expected the key hash of {name!r} to fit its key, found another")
    return VerifierKey(name, key[1:])


def _signature(body: str, key_name: str, key: Ed25519PrivateKey) -> str:
    key_hash = _key_hash(key_name, key.public_key().public_bytes_raw())
    return f"{_SIGNATURE_START}{key_name} {_base64(key_hash + key.sign(body.encode()))}\n"


def _split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the signed text and the signatures, each as name and bytes."""
    if len(note) > NOTE_CHARACTERS_MAX or _FORBIDDEN.search(note):
        raise NoteError(f"expected a note of up to {NOTE_CHARACTERS_MAX} characters without control characters")
    text, blank, block = note.rpartition("\n\n")
    if not blank or not block.endswith("\n"):
        raise NoteError("expected a text, an empty line and signature lines, each ended by a newline")
    lines = block[:-1].split("\n")
    if len(lines) > _SIGNATURES_MAX:
        raise NoteError(f"expected up to {_SIGNATURES_MAX} signatures, found {len(lines)}")
    return text + "\n", [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> tuple[str, bytes]:
    name, space, encoded = line.removeprefix(_SIGNATURE_START).partition(" ")
    sealed = _decode_base64(encoded)
    known = line.startswith(_SIGNATURE_START) and space and _is_name(name)
    if not known or sealed is None or len(sealed) <= _KEY_HASH_BYTES:
        raise NoteError("expected a signature line of em dash, key name and base64")
    return name, sealed


def _parse_checkpoint(body: str) -> Checkpoint:
    lines = body[:-1].split("\n")
    if len(lines) < _CHECKPOINT_LINES or not all(lines):
        raise NoteError("expected a checkpoint of origin, size and root, each on a line")
    origin, size, encoded = lines[:_CHECKPOINT_LINES]
    root = _decode_base64(encoded)
    if _SIZE.fullmatch(size) is None or int(size) >= _SIZE_END:
        raise NoteError("expected the tree size as a decimal number below 2**64 without leading zeros")
    if root is None or len(root) != _ROOT_BYTES:
        raise NoteError(f"expected a root of {_ROOT_BYTES} bytes in base64")
    return Checkpoint(origin, int(size), root)


def _private(private_key: bytes) -> Ed25519PrivateKey:
    if len(private_key) != KEY_BYTES:
        raise ValueError(f"expected a private key of {KEY_BYTES} bytes, found {len(private_key)}")
    return Ed25519PrivateKey.from_private_bytes(private_key)


def _key_hash(name: str, key: bytes) -> bytes:
    text = name.encode("utf-8", "surrogatepass")
    return hashlib.sha256(text + b"\n" + _ED25519 + key).digest()[:_KEY_HASH_BYTES]


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name) and not _FORBIDDEN.search(name)


def _require_name(name: str) -> None:
    if not _is_name(name):
        raise ValueError("expected a key name without spaces, plus signs and control characters")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode_base64(text: str) -> bytes | None:
    """Return the bytes of canonical base64, or None: one text per value, or a signature could be written twice."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64(data) == text else None
