"""Templates: a small grammar, and places in every refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.delivery.templates import parse
from keyturn.errors import InputError, NotFoundError

VALUES: dict[str, dict[str, Any]] = {
    "production/db": {"password": 'p"w&/\n', "port": 5432, "blob": {"$binary": "/wA="}, "odd name": "x"},
}


def rendered(text: str) -> bytes:
    return parse(text.encode()).render(VALUES)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain } { text", b"plain } { text"),
        ('{{ secret "production/db" "password" }}', b'p"w&/\n'),
        ('{{secret "production/db" "password"|json}}', b'"p\\"w&/\\n"'),
        ('{{ secret "production/db" "password" | base64 }}', b"cCJ3Ji8K"),
        ('{{ secret "production/db" "password" | url }}', b"p%22w%26%2F%0A"),
        ('{{ secret "production/db" "port" }}', b"5432"),
        ('{{ secret "production/db" "blob" }}', b"\xff\x00"),
        ('{{ secret "production/db" "blob" | base64 | json }}', b'"/wA="'),
        ('{{ secret "production/db" "odd name" }}', b"x"),
        ('a {{ "{{" }} b', b"a {{ b"),
        ('{{ secret\n  "production/db"\n  "port" }}!', b"5432!"),
    ],
)
def test_references_are_filled_in(text: str, result: bytes) -> None:
    assert rendered(text) == result


def test_a_whole_secret_is_json() -> None:
    assert json.loads(rendered('{{ secret "production/db" }}')) == VALUES["production/db"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ok\n  {{ secrets }}", "line 2, column 13"),
        ('{{ secret "a" "b" | upper }}', "line 1, column 26"),
        ('{{ secret "a" "b" ', "line 1, column 19"),
        ("{{ secret }}", "line 1, column 11"),
        ("{{ if x }}", "line 1, column 6"),
        ('{{ secret "a" "b" "c" }}', "line 1, column 19"),
        ("{{", "line 1, column 3"),
        ('{{ secret "a\n" "b" }}', "line 1, column 11"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(InputError, match=place):
        parse(text.encode())


def test_a_field_that_is_not_there_is_an_error_with_its_place() -> None:
    with pytest.raises(NotFoundError, match="line 2, column 3: production/db has no field 'user'"):
        rendered('x\n  {{ secret "production/db" "user" }}')


def test_a_value_is_never_read_as_a_template() -> None:
    """Whoever may write one secret must not read another through the file it is put into."""
    text = '{{ secret "a/b" "c" }}'
    inner = '{{ secret "production/db" "password" }}'
    assert parse(text.encode()).render({"a/b": {"c": inner}}) == inner.encode()


@given(content=st.binary(max_size=100))
def test_other_text_passes_as_it_is(content: bytes) -> None:
    if b"{{" not in content:
        assert parse(content).render({}) == content
