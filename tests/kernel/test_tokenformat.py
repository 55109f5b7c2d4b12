import hashlib
import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import tokenformat
from keyturn.kernel.secret import BASE62
from keyturn.kernel.tokenformat import Parsed

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "token.json").read_text())

prefixes = st.from_regex(tokenformat.PREFIX_PATTERN, fullmatch=True)
tags = st.from_regex(tokenformat.TAG_PATTERN, fullmatch=True)
# Hypothesis leaves surrogates out of `text()` by default.
any_text = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["reason"])
def test_a_key_is_read_as_its_vector_says(case: Case) -> None:
    presented = "".join(case["parts"])
    expected = case["expect"] and Parsed(**case["expect"])
    assert tokenformat.parse(presented) == expected
    assert tokenformat.version_id_of(presented) == (expected and expected.version_id)


@pytest.mark.parametrize("case", VECTORS["digests"], ids=lambda case: case["reason"])
def test_a_digest_is_what_its_vector_says(case: Case) -> None:
    hashed = tokenformat.sha256("".join(case["parts"]))
    assert hashed.hex() == case["sha256_hex"]
    assert tokenformat.digest(bytes.fromhex(case["pepper_hex"]), hashed).hex() == case["digest_hex"]


@given(prefixes, tags)
def test_every_minted_key_is_read_back(prefix: str, tag: str) -> None:
    minted = tokenformat.mint(prefix, tag)
    presented = minted.key.reveal()
    assert tokenformat.version_id_of(presented) == minted.version_id
    assert tokenformat.parse(presented) == Parsed(prefix, tag, minted.version_id)
    assert len(presented) == len(prefix) + len(tag) + 2 + tokenformat.BODY_LENGTH


@given(any_text)
def test_no_text_makes_the_parser_raise(text: str) -> None:
    """What a caller presents is arbitrary; an exception on the hot path would be a way to break it."""
    assert tokenformat.parse(text) is None
    assert tokenformat.version_id_of(text) is None
    assert len(tokenformat.sha256(text)) == 32


@given(st.text("ab01AZ_\n", max_size=100))
def test_text_that_nearly_has_the_shape_is_refused(text: str) -> None:
    assert tokenformat.version_id_of(text) is None


@given(st.data())
def test_every_single_substitution_is_refused(data: st.DataObject) -> None:
    """CRC-32 finds every error within 32 bits: one wrong character never reaches a lookup."""
    presented = tokenformat.mint("acme", "live").key.reveal()
    at = data.draw(st.integers(0, len(presented) - 1))
    other = data.draw(st.characters(exclude_categories=()).filter(lambda character: character != presented[at]))
    assert tokenformat.version_id_of(presented[:at] + other + presented[at + 1 :]) is None


@given(st.data())
def test_every_insertion_and_deletion_is_refused(data: st.DataObject) -> None:
    presented = tokenformat.mint("acme", "live").key.reveal()
    body = len("acme_live_")
    at = data.draw(st.integers(body, len(presented) - 1))
    assert tokenformat.version_id_of(presented[:at] + presented[at + 1 :]) is None
    assert tokenformat.version_id_of(presented[:at] + data.draw(st.sampled_from(BASE62)) + presented[at:]) is None


@pytest.mark.parametrize("unit", ["a", "_", "a_", "ab_cd_", "\x00", "\ud800", "é"])
def test_a_text_of_ten_million_characters_is_refused(unit: str) -> None:
    """A long text must not buy time: were it read whole, ten thousand answers would take minutes."""
    presented = (unit * 10_000_000)[:10_000_000]
    for _ in range(10_000):
        assert tokenformat.version_id_of(presented) is None


def test_keys_never_repeat_a_secret_or_an_id() -> None:
    minted = [tokenformat.mint("acme", "live") for _ in range(200)]
    assert len({one.version_id for one in minted}) == 200
    assert len({one.key.reveal()[-49:-6] for one in minted}) == 200


def test_the_secret_carries_at_least_256_bits() -> None:
    """The secret is what an attacker has to guess; 62 to the power of its length has to exceed 2 to the 256."""
    assert 62**tokenformat.SECRET_LENGTH >= 2**256


def test_a_minted_key_does_not_show_in_its_repr() -> None:
    """A value that prints itself ends up in a log."""
    minted = tokenformat.mint("acme", "live")
    assert minted.key.reveal()[-49:] not in repr(minted)


@pytest.mark.parametrize("prefix", ["", "a", "1a", "A1", "a-b", "a_b", "a" * 17, "ab\n", "áb"])
def test_a_malformed_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="expected a prefix"):
        tokenformat.check_prefix(prefix)
    with pytest.raises(ValueError, match="expected a prefix"):
        tokenformat.mint(prefix, "live")


@pytest.mark.parametrize("tag", ["", "a", "A1", "a-b", "a_b", "a" * 17, "ab\n", "\u0661\u0662"])
def test_a_malformed_tag_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="expected a tag"):
        tokenformat.check_tag(tag)
    with pytest.raises(ValueError, match="expected a tag"):
        tokenformat.mint("acme", tag)


@pytest.mark.parametrize("length", [0, 31, 65])
def test_a_pepper_of_the_wrong_length_is_refused(length: int) -> None:
    """BLAKE2b with an empty key is no keyed hash; that must never be what lies at rest."""
    with pytest.raises(ValueError, match="expected a pepper"):
        tokenformat.digest(bytes(length), bytes(32))


def test_another_pepper_gives_another_digest() -> None:
    hashed = hashlib.sha256(b"presented").digest()
    assert tokenformat.digest(b"a" * 32, hashed) != tokenformat.digest(b"b" * 32, hashed)
