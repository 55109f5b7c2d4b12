from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.ruleset.gitleaks import read_gitleaks
from keyturn.scanner.ruleset.model import Ruleset

KEYS = [
    "id", "regex", "description", "path", "keywords", "entropy", "secretGroup", "allowlist", "allowlists", "required",
    "skipReport", "regexes", "paths", "commits", "stopwords", "condition", "regexTarget", "targetRules", "withinLines",
    "rules", "extend", "useDefault", "disabledRules", "title",
]  # fmt: skip
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    st.sampled_from(["one", "AND", "line", "a(b)", "(?i)x", "[", "x{2,900}", "(?:a|b)*c", ""]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=24,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SLOW_ANYWHERE_ELSE = [
    "(a+)+$",
    "(a|aa)+$",
    "(?:a?){60}a{60}",
    "(.*a){25}",
    "(?i)(?:x[^a]{0,300}){3}y",
    "a.{0,900}b.{0,900}c",
    "(?:[a-z]{1,60}[0-9]){14}",
    ".*.*.*.*=.*",
]


def toml(value: Any) -> str:
    """Write a value as TOML in one line; JSON's texts and numbers are TOML's too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


def read(text: str) -> Ruleset | None:
    with contextlib.suppress(InputError):
        return read_gitleaks(text, name="r", read_extended=lambda _: text, default=lambda: text)
    return None


@QUICK
@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6))
def test_no_table_of_any_shape_raises_another_error_than_of_input(tables: dict[str, Any]) -> None:
    read("\n".join(f"{key} = {toml(value)}" for key, value in tables.items()))


@QUICK
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6), max_size=4))
def test_no_rule_of_any_shape_raises_another_error_than_of_input(rules: list[dict[str, Any]]) -> None:
    read(f"rules = {toml([{'id': 'one', 'regex': 'x', **one} for one in rules])}")


@QUICK
@given(st.text(max_size=200))
def test_no_text_raises_another_error_than_of_input(text: str) -> None:
    read(text)


@QUICK
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.binary(max_size=200))
def test_a_rule_with_any_expression_is_refused_or_used(regex: str, data: bytes) -> None:
    ruleset = read(f"[[rules]]\nid = 'one'\nregex = {json.dumps(regex)}\n")
    if ruleset is None:
        return
    try:
        engine = open_engine(ruleset, cache=None, fallback=True)
    except InputError:
        return
    for one in engine.detect(data, "file"):
        assert 0 <= one.start <= one.secret_start < one.secret_end <= one.end <= len(data)


@pytest.mark.parametrize("regex", SLOW_ANYWHERE_ELSE)
def test_no_expression_of_a_user_makes_a_scan_hang(regex: str) -> None:
    """Protects every scan with foreign rules: matching is linear in the text, and backtracking would take years."""
    ruleset = read(f"[[rules]]\nid = 'one'\nregex = '''{regex}'''\n")
    assert ruleset is not None
    engine = open_engine(ruleset, cache=None)
    engine.detect((b"a" * 200 + b"x" * 50 + b"=\n") * 400, "file")
