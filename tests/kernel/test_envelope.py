import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import KeyturnError
from keyturn.kernel import envelope
from keyturn.kernel.envelope import EnvelopeError, Header

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "envelope.json").read_text())

KEY = bytes(range(32))
PLAINTEXT = b"a plaintext that errors must not repeat"
PLACE = {"purpose": "secret.value", "workspace": "ws_1", "path": "production/stripe/api"}


def sealed(plaintext: bytes = PLAINTEXT, key: bytes = KEY, version: int = 1) -> bytes:
    return envelope.seal(key, "wk_1", **PLACE, version=version, plaintext=plaintext)


@pytest.mark.parametrize("case", VECTORS["key_wrap"], ids=lambda case: case["reason"])
def test_keys_are_wrapped_as_the_standard_vectors_say(case: Case) -> None:
    kek, wrapped = bytes.fromhex(case["kek_hex"]), bytes.fromhex(case["wrapped_hex"])
    if case["opens"]:
        key = bytes.fromhex(case["key_hex"])
        assert envelope.wrap(kek, key) == wrapped
        assert envelope.unwrap(kek, wrapped) == key
    else:
        with pytest.raises(EnvelopeError):
            envelope.unwrap(kek, wrapped)


@pytest.mark.parametrize("case", VECTORS["sealed"], ids=lambda case: case["reason"])
def test_a_sealed_value_opens_as_its_vector_says(case: Case) -> None:
    """A value opens in its place, under its key, unaltered; in every other case it does not."""
    key, blob = bytes.fromhex(case["workspace_key_hex"]), bytes.fromhex(case["sealed_hex"])
    place = {name: case[name] for name in ("purpose", "workspace", "path", "version")}
    if case["opens"]:
        assert envelope.open_sealed(key, blob, **place) == bytes.fromhex(case["plaintext_hex"])
    else:
        with pytest.raises(EnvelopeError):
            envelope.open_sealed(key, blob, **place)


@pytest.mark.parametrize("case", VECTORS["phrase"], ids=lambda case: case["reason"])
def test_a_value_under_a_phrase_opens_as_its_vector_says(case: Case) -> None:
    secret, context, blob = (bytes.fromhex(case[name]) for name in ("secret_hex", "context_hex", "sealed_hex"))
    if case["opens"]:
        assert envelope.open_under_phrase(secret, context, blob) == bytes.fromhex(case["plaintext_hex"])
    else:
        with pytest.raises(EnvelopeError):
            envelope.open_under_phrase(secret, context, blob)


@given(st.binary(), st.text(), st.text(), st.text(), st.integers(0, 2**64 - 1))
def test_what_is_sealed_opens_in_its_place(
    plaintext: bytes,
    purpose: str,
    workspace: str,
    path: str,
    version: int,
) -> None:
    blob = envelope.seal(
        KEY, "wk_1", purpose=purpose, workspace=workspace, path=path, version=version, plaintext=plaintext
    )
    assert envelope.header(blob) == Header(1, "wk_1", blob[10:50])
    opened = envelope.open_sealed(KEY, blob, purpose=purpose, workspace=workspace, path=path, version=version)
    assert opened == plaintext


@given(st.data())
def test_no_altered_byte_goes_unnoticed(data: st.DataObject) -> None:
    """Every byte, of the header too, is authenticated."""
    blob = bytearray(sealed())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EnvelopeError):
        envelope.open_sealed(KEY, bytes(blob), **PLACE, version=1)


@given(st.data())
def test_no_cut_goes_unnoticed(data: st.DataObject) -> None:
    blob = sealed()
    with pytest.raises(EnvelopeError):
        envelope.open_sealed(KEY, blob[: data.draw(st.integers(0, len(blob) - 1))], **PLACE, version=1)


@given(st.binary(max_size=200))
def test_any_bytes_raise_envelope_error_only(blob: bytes) -> None:
    with pytest.raises(EnvelopeError):
        envelope.header(blob)
    with pytest.raises(EnvelopeError):
        envelope.open_sealed(KEY, blob, **PLACE, version=1)
    with pytest.raises(EnvelopeError):
        envelope.open_under_phrase(b"secret", b"context", blob)
    with pytest.raises(EnvelopeError):
        envelope.unwrap(KEY, blob)


@given(st.binary(max_size=200))
def test_any_bytes_after_a_good_start_raise_envelope_error_only(rest: bytes) -> None:
    with pytest.raises(EnvelopeError):
        envelope.open_sealed(KEY, b"KTEV\x01\x04wk_1" + rest, **PLACE, version=1)
    with pytest.raises(EnvelopeError):
        envelope.open_under_phrase(b"secret", b"context", b"KTPH\x01" + rest)


def test_a_wrapped_key_of_another_length_does_not_open_as_a_data_key() -> None:
    blob = b"KTEV\x01\x04wk_1" + envelope.wrap(KEY, bytes(31)) + bytes(12 + 16)
    with pytest.raises(EnvelopeError):
        envelope.open_sealed(KEY, blob, **PLACE, version=1)


def test_sealing_twice_gives_unrelated_bytes() -> None:
    """A data key is used once: two sealings of one value share neither key, nonce nor ciphertext."""
    one, other = sealed(), sealed()
    start = len(b"KTEV\x01\x04wk_1")
    assert one[:start] == other[:start]
    assert one[start : start + 40] != other[start : start + 40]
    assert one[start + 40 : start + 52] != other[start + 40 : start + 52]
    assert one[start + 52 :] != other[start + 52 :]


def test_the_plaintext_shows_neither_in_the_blob_nor_in_errors() -> None:
    blob = sealed()
    assert PLAINTEXT not in blob
    with pytest.raises(EnvelopeError) as caught:
        envelope.open_sealed(bytes(32), blob, **PLACE, version=1)
    assert "plaintext" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_every_cause_of_a_closed_value_gives_the_same_answer() -> None:
    """Which check failed would tell an attacker what to try next."""
    blob = sealed()
    answers = set()
    for key, value, version in (
        (bytes(32), blob, 1),
        (KEY, blob, 2),
        (KEY, blob[:-1] + bytes([blob[-1] ^ 1]), 1),
        (KEY, blob[:10] + bytes([blob[10] ^ 1]) + blob[11:], 1),
    ):
        with pytest.raises(EnvelopeError) as caught:
            envelope.open_sealed(key, value, **PLACE, version=version)
        answers.add(str(caught.value))
    assert len(answers) == 1


def test_an_envelope_error_is_of_the_one_tree_with_a_stable_code() -> None:
    assert issubclass(EnvelopeError, KeyturnError)
    assert EnvelopeError.code == "integrity"


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_that_is_not_256_bits_is_refused(length: int) -> None:
    key = bytes(length)
    with pytest.raises(ValueError, match="expected a key of 32 bytes"):
        envelope.wrap(key, KEY)
    with pytest.raises(ValueError, match="expected a key of 32 bytes"):
        envelope.unwrap(key, bytes(40))
    with pytest.raises(ValueError, match="expected a key of 32 bytes"):
        sealed(key=key)
    with pytest.raises(ValueError, match="expected a key of 32 bytes"):
        envelope.open_sealed(key, sealed(), **PLACE, version=1)


@pytest.mark.parametrize("key_id", ["", "a" * 65, "wk 1", "wk/1", "wké", "wk\n"])
def test_a_malformed_key_id_is_refused(key_id: str) -> None:
    with pytest.raises(ValueError, match="expected a key id"):
        envelope.seal(KEY, key_id, **PLACE, version=1, plaintext=b"")


@pytest.mark.parametrize("version", [-1, 2**64])
def test_a_version_that_does_not_fit_is_refused(version: int) -> None:
    with pytest.raises(ValueError, match="expected a version"):
        sealed(version=version)


def test_nothing_is_sealed_under_or_wrapped_from_nothing() -> None:
    with pytest.raises(ValueError, match="expected a secret"):
        envelope.seal_under_phrase(b"", b"context", b"")
    with pytest.raises(ValueError, match="expected a key to wrap"):
        envelope.wrap(KEY, b"")


@given(st.binary(min_size=1), st.binary(), st.binary())
def test_what_is_sealed_under_a_phrase_opens_under_it(secret: bytes, context: bytes, plaintext: bytes) -> None:
    blob = envelope.seal_under_phrase(secret, context, plaintext)
    assert envelope.open_under_phrase(secret, context, blob) == plaintext
    assert envelope.seal_under_phrase(secret, context, plaintext) != blob


@given(st.binary(min_size=1, max_size=100))
def test_a_wrapped_key_is_unwrapped(key: bytes) -> None:
    kek = envelope.new_key()
    assert envelope.unwrap(kek, envelope.wrap(kek, key)) == key
