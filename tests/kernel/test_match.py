import itertools
import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import match

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "match.json").read_text())

any_text = st.text(st.characters(exclude_categories=()))


def joined(segments: list[str], separators: list[str]) -> str:
    return segments[0] + "".join(
        separator + segment for separator, segment in zip(separators, segments[1:], strict=False)
    )


separators = st.lists(st.sampled_from(":."), min_size=3, max_size=3)
names = st.builds(joined, st.lists(st.sampled_from(["a", "b", "~a"]), min_size=1, max_size=4), separators)
patterns = st.builds(joined, st.lists(st.sampled_from(["a", "b", "~a", "*"]), min_size=1, max_size=3), separators)

# Every name of up to 4 segments over an alphabet that tells any two patterns of up to 3 segments apart.
EVERY_NAME = [
    joined(list(segments), list(between))
    for count in range(1, 5)
    for segments in itertools.product(["a", "b", "~a", "c"], repeat=count)
    for between in itertools.product(":.", repeat=count - 1)
]


@pytest.mark.parametrize("case", VECTORS["matches"], ids=lambda case: f"{case['reason']} {case['pattern']!a}")
def test_a_pattern_matches_as_its_vector_says(case: Case) -> None:
    assert match.matches(case["pattern"], case["name"]) is case["matches"]
    both = match.compile_patterns([case["pattern"], "never:matched"])
    assert both.matches(case["name"]) is case["matches"]


@pytest.mark.parametrize("case", VECTORS["covers"], ids=lambda case: f"{case['reason']} {case['wide']!a}")
def test_a_pattern_covers_as_its_vector_says(case: Case) -> None:
    """Who holds the wide pattern may hand out the narrow one; a mistake here is an escalation."""
    assert match.covers(case["wide"], case["narrow"]) is case["covers"]


@given(patterns, patterns)
def test_covering_is_exactly_matching_every_name_the_other_matches(wide: str, narrow: str) -> None:
    """Attenuation is sound (nothing more is handed out) and complete (nothing less is allowed)."""
    contained = all(match.matches(wide, name) for name in EVERY_NAME if match.matches(narrow, name))
    assert match.covers(wide, narrow) is contained


@given(patterns, names)
def test_a_name_is_matched_by_exactly_the_patterns_that_cover_it(pattern: str, name: str) -> None:
    assert match.matches(pattern, name) is match.covers(pattern, name)


@given(st.lists(patterns, max_size=5), names)
def test_a_matcher_matches_what_any_of_its_patterns_does(several: list[str], name: str) -> None:
    assert match.compile_patterns(several).matches(name) is any(match.matches(one, name) for one in several)


@given(patterns)
def test_every_pattern_covers_itself(pattern: str) -> None:
    match.check_pattern(pattern)
    assert match.covers(pattern, pattern)


@given(names)
def test_every_name_is_a_pattern_for_itself_alone(name: str) -> None:
    match.check_name(name)
    match.check_pattern(name)
    assert [one for one in EVERY_NAME if match.matches(name, one)] == [name]


@given(any_text, any_text)
def test_no_text_makes_the_matcher_raise(pattern: str, name: str) -> None:
    match.matches(pattern, name)
    match.covers(pattern, name)
    match.matches("*", name)


@given(any_text)
def test_everything_that_is_matched_is_a_name(text: str) -> None:
    """What check_name refuses no pattern lets through, so a name cannot be smuggled past by its spelling."""
    try:
        match.check_name(text)
    except ValueError:
        assert not match.matches("*", text)
        assert not match.matches(text, text)
    else:
        assert match.matches(text, text)


def test_no_patterns_match_nothing() -> None:
    """Empty means deny."""
    assert not match.compile_patterns([]).matches("a")


def test_equal_patterns_share_a_matcher() -> None:
    assert match.compile_patterns(["a:*", "b"]) is match.compile_patterns(iter(["a:*", "b"]))


def test_a_long_hostile_name_is_refused_at_once() -> None:
    """The longest name, built to make a naive expression backtrack, and one a thousand times longer."""
    pattern = ":".join(["*"] * 100)
    assert not match.matches(pattern, ":".join(["a"] * 99) + ":")
    assert not match.matches("*:*:*:*:b", "a:" * 255 + "a")
    assert not match.matches("*", "a:" * 500_000)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "an empty segment"),
        ("a::b", 2, "an empty segment"),
        ("a:", 2, "an empty segment"),
        ("/a", 0, "an empty segment"),
        ("a b", 1, "the character ' ' is not allowed"),
        ("ab:c\n", 4, "not allowed"),
        ("ab/é", 3, "not allowed"),
        ("ab:c*", 4, "not a whole segment"),
        ("*a", 0, "not a whole segment"),
        ("a" * 513, 512, "more than 512 characters"),
    ],
)
def test_a_malformed_pattern_is_refused_with_position_and_reason(text: str, position: int, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"expected a pattern: .*at position {position}$") as caught:
        match.check_pattern(text)
    assert reason in str(caught.value)


def test_a_name_holds_no_wildcard() -> None:
    with pytest.raises(ValueError, match=r"expected a name: a \* is for patterns only at position 2"):
        match.check_name("a:*")
