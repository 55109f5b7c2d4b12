import json
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import redact, tokenformat
from keyturn.kernel.secret import Secret

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "redact.json").read_text())

any_text = st.text(st.characters(exclude_categories=()))


@dataclass
class Note:
    """An object that shows its content."""

    text: str


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["reason"])
def test_text_is_scrubbed_as_its_vector_says(case: Case) -> None:
    assert redact.scrub("".join(case["parts"])) == case["expect"]


@given(any_text, any_text)
def test_no_text_around_a_key_hides_it(before: str, after: str) -> None:
    """Whatever surrounds it, of the secret part not a run of eight characters is left."""
    key = tokenformat.mint("acme", "live").key.reveal()
    secret = key[-49:-6]
    scrubbed = redact.scrub(before + key + after)
    assert all(secret[at : at + 8] not in scrubbed for at in range(len(secret) - 8))


@given(any_text)
def test_scrubbing_twice_changes_nothing_more(text: str) -> None:
    once = redact.scrub(text)
    assert redact.scrub(once) == once


@given(
    st.recursive(
        st.none() | st.integers() | st.text("abc"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    )
)
def test_values_without_credentials_stay_as_they_are(value: object) -> None:
    assert redact.scrub_value(value) == value


def test_credentials_are_found_wherever_they_are_nested() -> None:
    key = tokenformat.mint("acme", "live").key.reveal()
    value = {
        "event": f"refused {key}",
        "list": [key, {"tuple": (key, 1, None, True, 2.5)}],
        "set": {key},
        "bytes": key.encode(),
        "object": Note(key),
        "mapping": UserDict({"inner": key}),
        "error": ValueError(key),
        key: "a key of the mapping",
        ("tuple", key): "another",
        "secret": Secret(key),
    }
    scrubbed = redact.scrub_value(value)
    assert key not in repr(scrubbed)
    assert key[-49:-6] not in repr(scrubbed)
    assert isinstance(scrubbed, dict)
    assert scrubbed["event"] == "refused [redacted]"
    assert scrubbed["list"] == ["[redacted]", {"tuple": ("[redacted]", 1, None, True, 2.5)}]
    assert scrubbed["set"] == ["[redacted]"]
    assert scrubbed["mapping"] == {"inner": "[redacted]"}
    assert scrubbed["secret"] == "[redacted]"


def test_other_objects_stay_when_they_show_no_credential() -> None:
    note = Note("nothing")
    assert redact.scrub_value([note]) == [note]
    assert redact.scrub_value({1: note}) == {1: note}


def test_what_is_nested_too_deeply_is_replaced_whole() -> None:
    deep: object = "text"
    for _ in range(15):
        deep = [deep]
    assert redact.scrub_value(deep) == deep
    assert "text" not in repr(redact.scrub_value([deep]))


def test_a_value_that_holds_itself_ends() -> None:
    value: list[object] = []
    value.append(value)
    assert "[redacted]" in repr(redact.scrub_value(value))


@pytest.mark.parametrize("unit", ["a", "a_", "ab_cd_", "-----BEGIN ", "-----BEGIN A-----", "bearer ", "Bearer+", " "])
def test_a_long_hostile_text_is_scrubbed_in_one_pass(unit: str) -> None:
    """Whoever can write a log line must not be able to stop the logger; quadratic work would take minutes here."""
    redact.scrub(unit * (1_000_000 // len(unit)))
