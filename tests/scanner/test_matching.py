from __future__ import annotations

import hashlib

import pytest

from keyturn.kernel.secret import Secret
from keyturn.kernel.tokenformat import mint, version_id_of
from keyturn.scanner.matching import candidate_of, words
from keyturn.scanner.ruleset.samples import expand

VALUE = expand("{{base62:32}}7", "held")


def found(text: str) -> set[str]:
    data = text.encode()
    return {data[start:end].decode() for start, end in words(data)}


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        'password = "{}"',
        "PASSWORD={}",
        "--token={}",
        "x-api-key: {}",
        "key:{}",
        "https://api.test/?token={}&page=2",
        '{{"a": "{}", "b": 2}}',
        "(see {}).",
        "<key>{}</key>",
        "a={}; b=2",
        '\\"{}\\"',
    ],
)
def test_a_value_is_a_word_in_every_syntax(line: str) -> None:
    assert VALUE in found(line.format(VALUE))


def test_a_value_with_signs_is_one_word() -> None:
    value = expand("{{base64:31}}9==", "signs")
    assert value in found(f'SECRET="{value}"')


@pytest.mark.parametrize("text", ["short1", "a" * 40, "correct-horse-battery-staple", "1" * 600])
def test_what_can_be_tried_or_has_no_digit_or_is_too_long_is_not_asked_about(text: str) -> None:
    assert text not in found(text)


def test_a_candidate_is_a_digest_and_a_length() -> None:
    candidate = candidate_of(Secret(f" {VALUE}\n"))
    assert candidate is not None
    assert candidate.digest == hashlib.sha256(VALUE.encode()).hexdigest()
    assert (candidate.length, candidate.version) == (len(VALUE), "")
    data = f"x={VALUE}".encode()
    assert hashlib.sha256(data[2:]).hexdigest() == candidate.digest


def test_a_key_of_ours_is_named_by_its_version_id() -> None:
    key = mint("acme", "live").key
    candidate = candidate_of(key)
    assert candidate is not None
    assert candidate.version == version_id_of(key.reveal())
    assert candidate_of(Secret("short")) is None
