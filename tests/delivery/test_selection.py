"""Names and texts that fields become."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.delivery.selection import (
    Collected,
    Reference,
    Selection,
    content_of,
    parse_reference,
    text_of,
    variable_name,
)
from keyturn.errors import InputError, NotFoundError
from tests.client.test_secrets import value


def collected(fields: dict[str, Any], **more: Any) -> Collected:
    held = value("production/a", 1)
    held.fields.clear()
    held.fields.update(fields)
    return Collected(Selection(**more), {held.path: held}, {held.path: "a"})


@pytest.mark.parametrize(
    ("text", "name"),
    [("key", "KEY"), ("api-key", "API_KEY"), ("a.b/c", "A_B_C"), ("2fa", "_2FA"), ("schlüssel", "SCHL_SSEL")],
)
def test_a_field_is_a_variable_in_upper_case(text: str, name: str) -> None:
    assert variable_name(text, "production/a#x") == name


@pytest.mark.parametrize("text", ["", "-", "ключ", "_"])
def test_a_name_of_which_nothing_is_left_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be a variable"):
        variable_name(text, "production/a#x")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("text", "text"),
        ("", ""),
        (5, "5"),
        (True, "true"),
        (None, "null"),
        (["a", 1], '["a",1]'),
        ({"a": 1}, '{"a":1}'),
        ({"$binary": "aGk="}, "hi"),
        ({"$binary": "not base64!"}, '{"$binary":"not base64!"}'),
    ],
)
def test_text_and_bytes_are_given_as_they_are_and_the_rest_as_json(content: Any, text: str) -> None:
    assert text_of(content, "here") == text


def test_bytes_that_are_no_text_survive_as_a_variable() -> None:
    assert text_of({"$binary": "/w=="}, "here").encode("utf-8", "surrogateescape") == b"\xff"
    assert content_of({"$binary": "/wA="}) == b"\xff\x00"
    with pytest.raises(InputError, match="holds a NUL"):
        text_of({"$binary": "/wA="}, "here")


def test_a_reference_is_a_name_a_path_and_a_field() -> None:
    assert parse_reference("A=b/c#d=e#f") == Reference("A", "b/c", "d=e#f")
    for text in ("A", "A=", "A=b/c", "A=b/c#", "=b/c#d", "1A=b/c#d", "A B=b/c#d", "A=#d"):
        with pytest.raises(InputError):
            parse_reference(text)


def test_a_field_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFoundError, match="no field 'x'") as caught:
        collected({"a": "1", "b": "2"}, maps=(Reference("X", "production/a", "x"),)).variables()
    assert caught.value.hint == "it has: a, b"


def test_a_mapped_name_takes_the_place_of_a_fields_own() -> None:
    maps = (Reference("A", "production/a", "b"), Reference("LD_PRELOAD", "production/a", "LD_PRELOAD"))
    found = collected({"a": "1", "b": "2", "LD_PRELOAD": "meant"}, maps=maps).variables()
    assert found == {"A": "2", "B": "2", "LD_PRELOAD": "meant"}


def test_ordinary_names_are_not_taken_for_the_loaders() -> None:
    names = ["GIT_TOKEN", "NODE_ENV", "JAVA_HOME", "PYTHON_TOKEN", "PATH_PREFIX", "AWS_SECRET_ACCESS_KEY", "SSL_KEY"]
    assert set(collected(dict.fromkeys(names, "x")).variables()) == set(names)


def test_neither_a_repr_nor_a_comparison_shows_a_value() -> None:
    one, other = collected({"a": "sesame"}), collected({"a": "open"})
    assert "sesame" not in repr(one)
    assert one.says_the_same(collected({"a": "sesame"}))
    assert not one.says_the_same(other)
