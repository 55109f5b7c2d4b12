import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import KeyturnError
from keyturn.kernel import note
from keyturn.kernel.note import Checkpoint, NoteError, VerifierKey

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "note.json").read_text())

NAME = "keyturn.example/ws_1"
PRIVATE = bytes(range(32))
PUBLIC = note.public_key(PRIVATE)
ROOT = bytes(range(32, 64))

line = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1)
names = st.text(
    st.characters(min_codepoint=0x21, exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1
).filter(lambda name: "+" not in name)


@pytest.mark.parametrize("case", VECTORS["signed"], ids=lambda case: case["reason"])
def test_a_note_is_signed_as_its_vector_says(case: Case) -> None:
    private = bytes.fromhex(case["private_key_hex"])
    assert note.sign(case["body"], case["key_name"], private) == case["note"]


@pytest.mark.parametrize("case", VECTORS["checkpoints"], ids=lambda case: case["reason"])
def test_a_checkpoint_is_verified_as_its_vector_says(case: Case) -> None:
    """Only what the key signed, byte for byte, is a statement of the log."""
    public = bytes.fromhex(case["public_key_hex"])
    if case["expect"] is None:
        with pytest.raises(NoteError):
            note.verify(case["note"], case["key_name"], public)
    else:
        stated = note.verify(case["note"], case["key_name"], public)
        expected = case["expect"]
        assert stated == Checkpoint(expected["origin"], expected["size"], bytes.fromhex(expected["root_hex"]))


@pytest.mark.parametrize("case", VECTORS["verifier_keys"], ids=lambda case: case["reason"])
def test_a_verifier_key_is_read_as_its_vector_says(case: Case) -> None:
    if case["name"] is None:
        with pytest.raises(NoteError):
            note.parse_verifier_key(case["text"])
    else:
        public = bytes.fromhex(case["public_key_hex"])
        assert note.parse_verifier_key(case["text"]) == VerifierKey(case["name"], public)
        assert note.encode_verifier_key(case["name"], public) == case["text"]


@given(line, st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), names)
def test_what_is_signed_is_stated(origin: str, size: int, root: bytes, name: str) -> None:
    signed = note.sign(note.checkpoint_body(origin, size, root), name, PRIVATE)
    assert note.verify(signed, name, PUBLIC) == Checkpoint(origin, size, root)


@given(names, st.binary(min_size=32, max_size=32))
def test_every_verifier_key_is_read_back(name: str, public: bytes) -> None:
    assert note.parse_verifier_key(note.encode_verifier_key(name, public)) == VerifierKey(name, public)


@given(st.data())
def test_no_altered_character_goes_unnoticed(data: st.DataObject) -> None:
    signed = note.sign(note.checkpoint_body(NAME, 8, ROOT), NAME, PRIVATE)
    at = data.draw(st.integers(0, len(signed) - 1))
    other = data.draw(st.characters(exclude_categories=()).filter(lambda character: character != signed[at]))
    with pytest.raises(NoteError):
        note.verify(signed[:at] + other + signed[at + 1 :], NAME, PUBLIC)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_raises_note_error_only(text: str) -> None:
    for candidate in (text, f"{NAME}\n8\n{text}", f"{NAME}\n8\n\n\N{EM DASH} {NAME} {text}\n"):
        with pytest.raises(NoteError):
            note.verify(candidate, NAME, PUBLIC)
    with pytest.raises(NoteError):
        note.parse_verifier_key(text)
    with pytest.raises(NoteError):
        note.parse_verifier_key(f"name+00000000+{text}")


def test_a_note_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(NoteError, match="expected a note of up to"):
        note.verify("a\n" * 600_000, NAME, PUBLIC)


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(NoteError, match="expected a checkpoint"):
        note.verify(note.sign("some text\n", NAME, PRIVATE), NAME, PUBLIC)


def test_a_public_key_that_is_none_is_refused() -> None:
    signed = note.sign(note.checkpoint_body(NAME, 8, ROOT), NAME, PRIVATE)
    with pytest.raises(NoteError):
        note.verify(signed, NAME, b"short")


def test_a_note_error_is_of_the_one_tree_with_a_stable_code() -> None:
    assert issubclass(NoteError, KeyturnError)
    assert NoteError.code == "integrity"


@pytest.mark.parametrize("origin", ["", "two\nlines", "tab\t", "\x00", "\ud800", "\r"])
def test_an_origin_that_cannot_stand_on_a_line_is_refused(origin: str) -> None:
    """An origin with a newline could write the size line itself."""
    with pytest.raises(ValueError, match="expected an origin"):
        note.checkpoint_body(origin, 0, ROOT)


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="expected a tree size"):
        note.checkpoint_body(NAME, size, ROOT)


def test_a_root_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a root"):
        note.checkpoint_body(NAME, 0, bytes(31))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u00a0b", "\ud800"])
def test_a_name_that_cannot_be_in_a_note_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a key name"):
        note.sign("text\n", name, PRIVATE)
    with pytest.raises(ValueError, match="expected a key name"):
        note.encode_verifier_key(name, PUBLIC)


@pytest.mark.parametrize("body", ["", "no newline", "tab\t\n", "\ud800\n"])
def test_a_text_that_cannot_be_in_a_note_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match="expected a text"):
        note.sign(body, NAME, PRIVATE)


def test_keys_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a private key"):
        note.sign("text\n", NAME, bytes(31))
    with pytest.raises(ValueError, match="expected a private key"):
        note.public_key(b"")
    with pytest.raises(ValueError, match="expected a public key"):
        note.encode_verifier_key(NAME, b"")


def test_new_signing_keys_differ_and_sign() -> None:
    one, other = note.new_signing_key(), note.new_signing_key()
    assert one != other
    signed = note.sign(note.checkpoint_body(NAME, 8, ROOT), NAME, one)
    assert note.verify(signed, NAME, note.public_key(one)).size == 8
