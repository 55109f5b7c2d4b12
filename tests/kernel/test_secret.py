import copy
import json
import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import secret
from keyturn.kernel.secret import Secret

SAMPLE = "sample value of a secret"


def test_no_way_of_printing_shows_the_value() -> None:
    """Secrets reach logs through `repr`, `str` and formatting; all of them give the same mask."""
    held = Secret(SAMPLE)
    shown = [repr(held), str(held), f"{held}", f"{held!r}", f"{held:>40}", "%s" % held, f"{[held]}", f"{held!a}"]  # noqa: UP031
    assert all(SAMPLE not in text and "[secret]" in text for text in shown)


def test_a_secret_cannot_be_pickled() -> None:
    """A pickle is a copy of the value in a file or on a wire."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(Secret(SAMPLE), protocol)


def test_a_secret_cannot_be_serialised_or_hashed() -> None:
    """A hash is a fingerprint, JSON a copy."""
    with pytest.raises(TypeError):
        json.dumps(Secret(SAMPLE))
    with pytest.raises(TypeError):
        hash(Secret(SAMPLE))
    assert not hasattr(Secret(SAMPLE), "__dict__")


def test_copies_are_the_same_object() -> None:
    held = Secret(SAMPLE)
    assert copy.copy(held) is held
    assert copy.deepcopy([held])[0] is held


@given(st.text(st.characters(exclude_categories=())))
def test_text_is_revealed_as_it_was(text: str) -> None:
    assert Secret(text).reveal() == text


@given(st.binary())
def test_bytes_are_revealed_as_they_were(value: bytes) -> None:
    held = Secret(value)
    assert held.reveal_bytes() == value
    assert len(held) == len(value)
    assert bool(held) == bool(value)


def test_a_decoding_error_does_not_carry_the_value() -> None:
    """UnicodeDecodeError holds the whole object, and chained exceptions are printed."""
    with pytest.raises(ValueError, match="expected a secret of UTF-8 text") as caught:
        Secret(b"\xff" + SAMPLE.encode()).reveal()
    assert caught.value.__context__ is None
    assert SAMPLE not in repr(caught.value)


def test_secrets_are_equal_by_value_and_to_nothing_else() -> None:
    assert Secret(SAMPLE) == Secret(SAMPLE.encode())
    assert Secret(SAMPLE) != Secret(SAMPLE + "x")
    assert Secret(SAMPLE) != SAMPLE
    assert Secret(SAMPLE) != SAMPLE.encode()


@given(st.binary(), st.binary())
def test_constant_time_equality_is_equality(a: bytes, b: bytes) -> None:
    assert secret.constant_time_equal(a, b) == (a == b)
    assert secret.constant_time_equal(a, bytes(a))


@pytest.mark.parametrize("length", [0, 1, 12, 43, 1000])
def test_random_base62_has_the_length_and_alphabet(length: int) -> None:
    text = secret.random_base62(length)
    assert len(text) == length
    assert set(text) <= set(secret.BASE62)


def test_every_base62_character_is_equally_likely() -> None:
    """A byte modulo 62 without rejection would make eight characters a quarter likelier: 20 deviations off here."""
    drawn = 62 * 10_000
    counts = Counter(secret.random_base62(drawn))
    assert len(counts) == 62
    # 8 standard deviations of a fair draw; a false alarm is one in 10**13.
    assert all(abs(count - 10_000) < 800 for count in counts.values())


def test_random_bytes_differ() -> None:
    assert len(secret.random_bytes(32)) == 32
    assert secret.random_bytes(32) != secret.random_bytes(32)
