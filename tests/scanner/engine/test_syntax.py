from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from keyturn.scanner.engine.cuts import head_of, kept_of_last_group, loosened, without_head, without_lead, without_tail
from keyturn.scanner.engine.literals import required_literals
from keyturn.scanner.engine.planning import look_for
from keyturn.scanner.engine.plans import Way, compiled
from keyturn.scanner.engine.syntax import NotUnderstoodError, parse
from keyturn.scanner.ruleset.model import Rule
from tests.scanner.shipped import every_rule, faults


def test_every_shipped_expression_is_understood() -> None:
    def check(rule: Rule) -> Iterator[str]:
        node = parse(rule.regex)
        if node.text != rule.regex.encode().decode("latin-1"):
            yield f"was read as {node.text!r}"
        for made in (without_tail(node)[0], without_head(node).text, without_lead(node).text):
            compiled(made or "x", rule.id, latin=True)

    wrong = faults([rule for rule in every_rule() if rule.regex], check)
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("expression", "width"),
    [
        ("a[b-d]{2,5}", 6),
        ("(?i)x[]a-]{3}(?P<n>a|bc)?", 6),
        (r"\x41\x{42}\101", 3),
        (r"\bkey\z", 3),
        ("a{,5}", 5),
        ("a{2}{3}", 6),
        (r"[[:alpha:]\]]{2}", 2),
        (r"\Qa.b\E+", math.inf),
        (r"\pL\p{Greek}", 2),
        ("é", 2),
        ("(|ab)", 2),
        ("(?:^)*", 0),
    ],
)
def test_width_is_the_most_that_a_match_has(expression: str, width: float) -> None:
    assert parse(expression).width == width


@pytest.mark.parametrize(
    ("expression", "literals"),
    [
        ("(?i)foo(bar|baz)", {b"foobar", b"foobaz"}),
        ("x+(GHP|gho)_[a-z]{3}", {b"ghp_", b"gho_"}),
        ("a?bcd", {b"bcd", b"abcd"}),
        ("[ab]cd|ef", {b"cd", b"ef"}),
        ("ab|[cd]", set()),
        ("(abc)*", set()),
        ("(abc){2}", {b"abcabc"}),
        (".*", set()),
    ],
)
def test_one_of_the_literals_stands_in_every_match(expression: str, literals: set[bytes]) -> None:
    assert {one for one in required_literals(parse(expression)) if len(one) > 1} == literals


@pytest.mark.parametrize(
    ("expression", "kept", "longer"),
    [
        ("ab{2,5}", "ab{2}", 3),
        ("key=.*", "key=", math.inf),
        (r"key=(\w{20,})", r"key=(\w{20})", math.inf),
        (r"key=\w{20,}\b", r"key=\w{20,}\b", 0),
        ("(?:a+|bc?)d*", "(?:a|b)", math.inf),
        ("(a*|b)", "", math.inf),
        ("x(|y{3})", "x", 3),
    ],
)
def test_a_tail_that_may_repeat_is_cut(expression: str, kept: str, longer: float) -> None:
    assert without_tail(parse(expression)) == (kept, longer)


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        (r"key=(\w{20,})", 20),
        (r"""key=(?:"(\w{8,})|([^ ]{8,}))""", 8),
        (r"""key=(?:"(\w{8,})|([^ ]{9,}))""", 0),
        (r"""key=(\w{8,})"?""", 0),
        (r"key=\w{8,}", 0),
        (r"key=(a\w{8,})", 0),
    ],
)
def test_it_is_known_where_a_last_group_begins_when_all_ways_agree(expression: str, kept: int) -> None:
    assert kept_of_last_group(parse(expression)) == kept


def test_a_head_that_may_be_missing_is_cut() -> None:
    node = parse(r"(?i)[\w.]{0,50}?key=x")
    assert without_head(node).text == "(?i)key=x"
    head = head_of(node)
    assert head is not None
    assert (head.alphabet, head.most) == (r"(?i)[\w.]", 50)
    assert head_of(parse(r"\b[a-z]{0,4}key")) is None
    assert head_of(parse(r"[a-z]*key")) is None


def test_counts_of_classes_are_spared() -> None:
    assert loosened(parse("(a[bc]{2,9}|d{4}){0,9}[x-z]?")).text == "(a[bc]{2,}|d{4}){0,9}[x-z]?"


def test_what_leads_to_the_first_literal_is_cut() -> None:
    assert without_lead(parse(r"\b([a-z]{2}[a-z0-9]*_x[a-z]{3})\b")).text == r"(_x[a-z]{3})\b"
    assert without_lead(parse("[a-z]{30}")).text == "[a-z]{30}"


@pytest.mark.parametrize("expression", ["(" * 5000, "(?", "[a", "a\\", "(a", r"\x{110000}", r"\y", "a)"])
def test_what_is_not_understood_says_so(expression: str) -> None:
    with pytest.raises(NotUnderstoodError):
        parse(expression)


def test_an_expression_that_is_not_understood_is_searched_everywhere() -> None:
    nested = "(" * 400 + "key[0-9]{4}" + ")" * 400
    look = look_for(Rule(id="a", title="A", regex=nested, keywords=("key",)))
    assert look.plan.way is Way.WHOLE
    assert look.plan.literals == (b"key",)
