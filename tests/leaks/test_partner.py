from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.errors import ForbiddenError, InputError
from keyturn.leaks.partner import (
    REPORTS_MAX,
    PublicKey,
    feedback_on,
    read_keys,
    read_reports,
    verify,
)

# The example of GitHub's documentation of its partner program, with the test key that it publishes there.
BODY = b'[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]'
IDENTIFIER = "f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d"
SIGNATURE = "MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY="
PUBLIC = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\n"
    "HzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==\n"
    "-----END PUBLIC KEY-----"
)
KEYS = (PublicKey(key_identifier=IDENTIFIER, key=PUBLIC),)


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def test_the_documented_example_is_proven() -> None:
    verify(BODY, IDENTIFIER, SIGNATURE, KEYS)
    [reported] = read_reports(BODY)
    assert (reported.token.reveal(), reported.type, reported.url, reported.source) == (
        "some_token",
        "some_type",
        "some_url",
        "some_source",
    )


@pytest.mark.parametrize(
    ("body", "identifier", "signature", "code"),
    [
        (BODY + b" ", IDENTIFIER, SIGNATURE, "signature_invalid"),
        (BODY.replace(b"some_token", b"othertoken"), IDENTIFIER, SIGNATURE, "signature_invalid"),
        (BODY, IDENTIFIER, "not base64!", "signature_invalid"),
        (BODY, IDENTIFIER, base64.b64encode(b"not DER").decode(), "signature_invalid"),
        (BODY, IDENTIFIER, "", "signature_missing"),
        (BODY, None, SIGNATURE, "signature_missing"),
        (BODY, "0" * 64, SIGNATURE, "signature_invalid"),
    ],
)
def test_what_was_tampered_with_is_refused(body: bytes, identifier: str | None, signature: str, code: str) -> None:
    with pytest.raises(ForbiddenError) as refused:
        verify(body, identifier, signature, KEYS)
    assert refused.value.code == code


def test_a_signature_of_another_key_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    signature = base64.b64encode(other.sign(BODY, ec.ECDSA(SHA256()))).decode()
    with pytest.raises(ForbiddenError):
        verify(BODY, IDENTIFIER, signature, KEYS)
    verify(BODY, "mine", signature, (PublicKey(key_identifier="mine", key=pem(other)),))


def test_a_list_of_keys_is_read_as_it_is_published() -> None:
    published = {"public_keys": [{"key_identifier": IDENTIFIER, "key": PUBLIC, "is_current": True, "more": 1}]}
    assert read_keys(json.dumps(published).encode()) == KEYS


@pytest.mark.parametrize(
    "keys",
    [
        {"public_keys": []},
        {"public_keys": [{"key_identifier": "a", "key": "no PEM"}]},
        {"public_keys": [{"key_identifier": "a", "key": pem(rsa.generate_private_key(65537, 2048))}]},
        {"public_keys": [{"key_identifier": "a", "key": pem(ec.generate_private_key(ec.SECP384R1()))}]},
        {"keys": []},
        [],
    ],
)
def test_keys_that_could_verify_nothing_are_refused(keys: object) -> None:
    with pytest.raises(InputError):
        read_keys(json.dumps(keys).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[{"type":"x"}]', b'[{"token":5}]', b"\xff", b"[{"])
def test_a_malformed_report_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        read_reports(body)


def test_a_report_is_bounded() -> None:
    with pytest.raises(InputError):
        read_reports(json.dumps([{"token": "x"}] * (REPORTS_MAX + 1)).encode())


def test_a_token_is_answered_by_its_hash_and_never_shown() -> None:
    [reported] = read_reports(BODY)
    answer = feedback_on(reported, ours=True)
    assert answer.token_hash == hashlib.sha256(b"some_token").hexdigest()
    assert answer.label == "true_positive"
    assert feedback_on(reported, ours=False).label == "false_positive"
    assert "some_token" not in repr(reported) + repr(answer)
