"""Masking: what never gets through, and what always does."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.delivery.masking import PIECE_BYTES, VALUE_BYTES_MIN, Masker, patterns_of


def masked(patterns: tuple[bytes, ...], chunks: list[bytes]) -> bytes:
    masker = Masker(patterns)
    return b"".join([*(masker.feed(chunk) for chunk in chunks), masker.finish()])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


# Few letters, so that values overlap each other and themselves.
values = st.lists(st.text("ab*/+", min_size=VALUE_BYTES_MIN, max_size=9), min_size=1, max_size=3)


@given(values=values, parts=st.lists(st.text("ab*/+ \n", max_size=12), max_size=6), places=st.lists(st.integers(0, 99)))
def test_a_value_never_gets_through_however_it_is_cut(values: list[str], parts: list[str], places: list[int]) -> None:
    """The one thing that masking is for: whatever a program prints, and in whatever chunks."""
    text = values[-1].join(parts).encode() + values[0].encode()
    out = masked(patterns_of(values), cut(text, places))
    assert not [value for value in values if value.encode() in out]


@given(text=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=20))
def test_what_holds_no_value_passes_unchanged(text: bytes, places: list[int]) -> None:
    patterns = patterns_of(["correct-horse-battery", b"\x00\x01\x02\x03\x04\x05"])
    chunks = cut(text, places)
    if not any(pattern in text for pattern in patterns):
        assert masked(patterns, chunks) == text


@given(values=values, parts=st.lists(st.text("ab*/+ ", max_size=9), max_size=6), places=st.lists(st.integers(0, 99)))
def test_how_it_is_cut_makes_no_difference(values: list[str], parts: list[str], places: list[int]) -> None:
    text = values[0].join(parts).encode()
    patterns = patterns_of(values)
    assert masked(patterns, cut(text, places)) == masked(patterns, [text])


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("after", ["", "p", "pq", "pqr"])
def test_every_usual_form_of_a_value_is_found(before: str, after: str) -> None:
    value = 'p"ss/wörd+\n&=secret'
    whole = before + value + after
    forms = [
        whole.encode(),
        json.dumps(whole).encode(),
        json.dumps(whole, ensure_ascii=False).encode(),
        quote(whole, safe="").encode(),
        quote(whole).lower().encode(),
        whole.encode().hex().encode(),
        whole.encode().hex().upper().encode(),
        base64.b64encode(whole.encode()),
        base64.urlsafe_b64encode(whole.encode()),
    ]
    patterns = patterns_of([value])
    for form in forms:
        out = masked(patterns, [form])
        assert b"********" in out or b"########" in out or len(set(out)) < len(set(form)), form
        assert out != form


def test_base64_leaves_nothing_of_the_value_to_be_decoded() -> None:
    value = "".join(("sk", "_live_", "0123456789abcdef"))
    for offset in range(3):
        for tail in range(3):
            encoded = base64.b64encode(b"." * offset + value.encode() + b"." * tail)
            out = masked(patterns_of([value]), [encoded])
            left = out.replace(b"********", b"").replace(b"########", b"")
            # At either end a character may stay that also carries bits of what stands beside the value.
            assert len(left) <= 3 + 6, out


def test_only_what_may_be_the_beginning_of_a_value_is_held_back() -> None:
    masker = Masker(patterns_of(["correct-horse"]))
    assert masker.feed(b"your answer? ") == b"your answer? "
    assert masker.feed(b"it is corr") == b"it is "
    assert masker.feed(b"upt\n") == b"corrupt\n"
    assert masker.feed(b"correct-") == b""
    assert masker.finish() == b"correct-"


def test_long_values_are_masked_whole_with_bounded_memory() -> None:
    value = "".join(f"{n:07d}" for n in range(5000))
    masker = Masker(patterns_of([value]))
    out = b""
    for start in range(0, len(value), 100):
        out += masker.feed(value[start : start + 100].encode())
        assert len(masker._held) <= PIECE_BYTES  # noqa: SLF001
    out += masker.finish()
    assert not set(out) & set(b"0123456789")


def test_each_line_of_a_value_is_masked_also_alone() -> None:
    value = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nshort\n-----END KEY-----\n"
    out = masked(patterns_of([value]), [b"log: MIIEvQIBADANBgkq\r\n"])
    assert b"MIIE" not in out
    assert out.endswith(b"\r\n")


def test_short_values_are_words_and_stay() -> None:
    assert masked(patterns_of(["eu", "12345"]), [b"eu 12345"]) == b"eu 12345"


def test_bytes_that_are_no_text_are_masked_too() -> None:
    value = bytes(range(128, 160))
    out = masked(patterns_of([value]), [b"\xff" + value[:10], value[10:] + b"\xfe"])
    assert out[:1] + out[-1:] == b"\xff\xfe"
    assert value not in out
