import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import ids

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "ids.json").read_text())

prefixes = st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True)
times = st.floats(0, 62**8 / 1000 - 1)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["reason"])
def test_an_id_is_recognised_as_its_vector_says(case: Case) -> None:
    assert ids.is_id(case["prefix"], case["text"]) is case["is_id"]


@pytest.mark.parametrize("case", VECTORS["times"], ids=lambda case: case["reason"])
def test_the_time_is_written_as_its_vector_says(case: Case) -> None:
    assert ids.new_id("key", case["at_seconds"])[4:12] == case["characters"]


@given(prefixes, times)
def test_every_new_id_is_recognised(prefix: str, at: float) -> None:
    made = ids.new_id(prefix, at)
    assert ids.is_id(prefix, made)
    assert not ids.is_id(prefix + "x", made)


@given(times, times)
def test_ids_sort_by_time(one: float, other: float) -> None:
    earlier, later = sorted([one, other])
    if int(earlier * 1000) < int(later * 1000):
        assert ids.new_id("key", earlier) < ids.new_id("key", later)


@given(st.text(), st.text(st.characters(exclude_categories=())))
def test_no_text_makes_recognition_raise(prefix: str, text: str) -> None:
    assert ids.is_id(prefix, text) is False


def test_ids_of_one_moment_differ() -> None:
    assert len({ids.new_id("key", 1.0) for _ in range(200)}) == 200


@pytest.mark.parametrize("prefix", ["", "k", "Key", "key_", "1ey", "k" * 17, "key\n"])
def test_a_malformed_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="expected an id prefix"):
        ids.new_id(prefix, 0)


@pytest.mark.parametrize("at", [-1, 62**8 / 1000])
def test_a_time_that_does_not_fit_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        ids.new_id("key", at)


def test_a_version_id_is_twelve_base62_characters() -> None:
    made = ids.new_version_id()
    assert len(made) == 12
    assert made.isalnum()
    assert made.isascii()
