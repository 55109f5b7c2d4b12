"""GitHub's secret-scanning partner protocol: a signed report of leaked tokens, and the answer to it.

    POST <the address given to GitHub>
    Github-Public-Key-Identifier: <which key>
    Github-Public-Key-Signature: <base64 of an ECDSA P-256 signature with SHA-256, in DER, over the raw body>

    [{"token": "…", "type": "…", "url": "…", "source": "content"}]

The answer tells of each token whether it was one of ours, by its SHA-256 and never by itself:

    [{"token_hash": "…", "token_type": "…", "label": "true_positive"}]

Source: GitHub Docs, "Secret scanning partner program".  The signature is over the body as it came: a body that is
decoded and encoded again is another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from keyturn.errors import ForbiddenError, InputError
from keyturn.kernel.secret import Secret
from keyturn.wire.leak_intakes import KEYS_MAX, PartnerReport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

IDENTIFIER_HEADER: Final = "github-public-key-identifier"
SIGNATURE_HEADER: Final = "github-public-key-signature"
REPORTS_MAX: Final = 1000
"""Tokens of one message."""


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of the keys that reports are signed with: P-256, as PEM of its SubjectPublicKeyInfo."""

    key_identifier: str
    key: str
    is_current: bool = True


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """The keys as GitHub publishes them; fields that it may add are passed over."""

    public_keys: tuple[PublicKey, ...]


class ReportedToken(msgspec.Struct, frozen=True, kw_only=True):
    """One token of a report."""

    token: Secret
    type: str
    url: str
    source: str


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered of one token: whether it was a key of ours."""

    token_hash: str
    token_type: str
    label: Literal["true_positive", "false_positive"]


_keys: Final = msgspec.json.Decoder(KeyList)
_reports: Final = msgspec.json.Decoder(list[PartnerReport])


def read_keys(body: bytes) -> tuple[PublicKey, ...]:
    """Read a list of keys; raises InputError when it is malformed, empty, or holds a key that is not of P-256."""
    try:
        keys = _keys.decode(body).public_keys
    except msgspec.DecodeError as error:
        raise InputError(f"the list of public keys is malformed: {error}", field="keys") from None
    check_keys(keys)
    return keys


def check_keys(keys: tuple[PublicKey, ...]) -> None:
    """Refuse keys that could verify nothing; raises InputError that names the key."""
    if not 0 < len(keys) <= KEYS_MAX:
        raise InputError(f"expected 1 to {KEYS_MAX} public keys, found {len(keys)}", field="keys")
    for one in keys:
        _load(one)


def verify(body: bytes, identifier: str | None, signature: str | None, keys: Iterable[PublicKey]) -> None:
    """Prove that a message was signed with one of these keys.

    Raises:
        ForbiddenError: `code` is `signature_missing` or `signature_invalid`.

    """
    if not identifier or not signature:
        raise ForbiddenError(
            "the report is not signed",
            code="signature_missing",
            hint="send Github-Public-Key-Identifier and Github-Public-Key-Signature",
        )
    found = next((one for one in keys if one.key_identifier == identifier), None)
    if found is None or not _is_signed(body, signature, found):
        raise not_proven()


def not_proven() -> ForbiddenError:
    """Build the one answer to what no listed key has signed; which keys are listed, and where, is told to nobody."""
    return ForbiddenError(
        "the signature does not belong to this body, or its key is not listed",
        code="signature_invalid",
        hint="sign the body as it is sent, and bring the keys of the intake up to date",
    )


def read_reports(body: bytes) -> list[ReportedToken]:
    """Read the tokens of a message that was verified; raises InputError when it is malformed or too long."""
    try:
        reported = _reports.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InputError("expected a JSON array of objects with a token", field="body") from None
    if len(reported) > REPORTS_MAX:
        raise InputError(f"expected at most {REPORTS_MAX} tokens, found {len(reported)}", field="body")
    return [
        ReportedToken(token=Secret(one.token), type=one.type[:200], url=one.url[:2048], source=one.source[:64])
        for one in reported
    ]


def feedback_on(reported: ReportedToken, *, ours: bool) -> Feedback:
    """Return what is answered of a token."""
    digest = hashlib.sha256(reported.token.reveal().encode("utf-8", "surrogatepass")).hexdigest()
    label: Literal["true_positive", "false_positive"] = "true_positive" if ours else "false_positive"
    return Feedback(token_hash=digest, token_type=reported.type, label=label)


def _is_signed(body: bytes, signature: str, key: PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        _load(key).verify(base64.b64decode(signature, validate=True), body, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _load(key: PublicKey) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        loaded = load_pem_public_key(key.key.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"key {key.key_identifier[:80]} is no public key in PEM", field="keys") from None
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise InputError(f"key {key.key_identifier[:80]} is not of the curve P-256", field="keys")
    return loaded
