from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import re2

from keyturn.errors import InputError
from keyturn.scanner.engine.compiling import compile_bounded
from keyturn.scanner.engine.confirming import entropy
from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.finders import HyperscanFinder
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.engine.planning import look_for
from keyturn.scanner.engine.plans import Way
from keyturn.scanner.ruleset.model import Allowlist, Required, Rule, Ruleset

BOTH = pytest.mark.parametrize("fallback", [False, True], ids=["hyperscan", "keywords"])


def _rule(name: str = "a", **fields: Any) -> Rule:
    return Rule(id=name, title=name, **fields)


def _engine(*rules: Rule, fallback: bool = False, **fields: Any) -> Engine:
    return open_engine(Ruleset(name="test", rules=rules, **fields), cache=None, fallback=fallback)


def _spans(engine: Engine, data: bytes, path: str = "", commit: str = "") -> list[tuple[int, int]]:
    return [(one.secret_start, one.secret_end) for one in engine.detect(data, path, commit)]


def _full_text(expression: str, data: bytes) -> list[tuple[int, int]]:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return [one.span() for one in re2.compile(expression.encode(), options).finditer(data) if one.start() < one.end()]


EXPRESSIONS = [
    r"ab+c?",
    r"\bkey[a-z]{2,5}",
    r"[a-c]{3,}",
    r"(?i)[\w.-]{0,10}?key[\w ]{0,6}=[ \"]{0,2}[a-c0-9]{4,12}",
    r"[\w.]{0,7}(?:key|bb)(?:a{0,9}c|[a-c]{0,30}=)[a-c]{1,9}",
    r"(?m)^ab.*$",
    r"a(?:b|bc)*?c\b",
    r"^key|c\z",
    r"(?s)key.{0,40}?abc",
    r"(?U)a+b",
    r"[0-9]?",
    r"\pLkey",
]


@BOTH
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_matches_are_those_of_the_whole_text(expression: str, *, fallback: bool) -> None:
    """No match is lost, moved or cut by looking in windows alone."""
    engine = _engine(_rule(regex=expression, window=400), fallback=fallback)
    drawn = random.Random(expression)
    for _ in range(40):
        size = drawn.choice([3, 30, 300])
        data = "".join(drawn.choices(["a", "b", "c", "key", "KEY", "=", " ", "\n", "ab", "9", "."], k=size)).encode()
        assert _spans(engine, data) == [_trimmed(data, span) for span in _full_text(expression, data)]


def _trimmed(data: bytes, span: tuple[int, int]) -> tuple[int, int]:
    whole = data[span[0] : span[1]]
    return span[0] + len(whole) - len(whole.lstrip(b"\n")), span[1] - len(whole) + len(whole.rstrip(b"\n"))


def test_pieces_of_a_large_document_hide_nothing() -> None:
    rules = [_rule("a", regex=r"\bkey_[a-z]{10,40}\b"), _rule("b", regex=r"(?s)BEGIN.{4,}?END", window=300)]
    made = compile_bounded([look_for(rule) for rule in rules])
    ruleset = Ruleset(name="test", rules=tuple(rules))
    whole = Engine(ruleset, HyperscanFinder(made.database, made.plans))
    pieces = Engine(ruleset, HyperscanFinder(made.database, made.plans, piece=512))
    drawn = random.Random(3)
    words = ["key_" + "x" * 20, "BEGIN" + "y" * 120 + "END", "word", "\n", "key_", "END"]
    data = " ".join(drawn.choices(words, k=3000)).encode()
    expected = whole.detect(data)
    assert len(expected) > 500
    assert pieces.detect(data) == expected
    assert pieces.detect(memoryview(data)) == expected


@BOTH
def test_a_rule_that_matches_everywhere_costs_time_in_proportion(*, fallback: bool) -> None:
    engine = _engine(_rule(regex="[A-Za-z0-9]{20,}"), _rule("b", regex="(?i)key.*"), fallback=fallback)
    data = b"aB3" * 700_000 + b" key " + b"z" * 700_000
    assert {one.rule.id for one in engine.detect(data)} == {"a", "b"}


@BOTH
@pytest.mark.parametrize("regex", [r"(x+x+)+y", r"(a|aa)+$", r"(?:a?){50}a{50}", r"(?s)(.*)*x", r"a(?s:.*)y|a"])
def test_an_expression_cannot_blow_up(regex: str, *, fallback: bool) -> None:
    """Whatever a user's rule says, time is linear in the document."""
    engine = _engine(_rule(regex=regex), fallback=fallback)
    for text in (b"x" * 20_000, b"a" * 20_000, b"xa" * 10_000):
        engine.detect(text)


@pytest.mark.parametrize(
    "regex", ["(a", "a(?=b)", r"(a)\1", "(((a{100}){100}){100})", "x" * 70_000, r"(\w{900}|\d{900}){9}"]
)
def test_an_expression_that_cannot_be_used_is_refused_by_the_name_of_its_rule(regex: str) -> None:
    with pytest.raises(InputError, match="rule mine"):
        _engine(_rule("mine", regex=regex))


@pytest.mark.parametrize(
    "fields",
    [
        {"regex": "a(b)", "secret_group": 2},
        {"regex": "a", "checksum": "none"},
        {"regex": "a", "path": "("},
        {"regex": "a", "allow": (Allowlist(regexes=("(",)),)},
        {"regex": "a", "requires": (Required(rule="other"),)},
        {},
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="rule mine"):
        _engine(_rule("mine", **fields))


def test_rules_that_take_too_long_to_compile_are_looked_for_by_their_literals() -> None:
    looks = [look_for(_rule(regex="key[a-z]{3}")), look_for(_rule(regex="[a-z]{3}[0-9]")), look_for(_rule(path="x"))]
    made = compile_bounded(looks, seconds=0.001)
    assert [plan.way for plan in made.plans] == [Way.WHOLE, Way.ALWAYS, Way.NEVER]
    rules = (_rule("a", regex="key[a-z]{3}"), _rule("b", regex="[a-z]{3}[0-9]"), _rule("c", path="x"))
    engine = Engine(Ruleset(name="test", rules=rules), HyperscanFinder(made.database, made.plans))
    assert [one.rule.id for one in engine.detect(b"..KEYabc.. keyabc abc1")] == ["a", "b"]


@BOTH
def test_the_secret_is_the_group_that_the_rule_names_or_the_first_that_matched(*, fallback: bool) -> None:
    rules = [_rule("a", regex="a=(x)?(y+)"), _rule("b", regex="b=(x)(y+)", secret_group=2), _rule("c", regex="c=z+\n")]
    assert _spans(_engine(*rules, fallback=fallback), b"a=yy b=xyy c=zz\n") == [(2, 4), (8, 10), (11, 15)]


@BOTH
def test_entropy_checksum_and_path_are_asked_for(*, fallback: bool) -> None:
    rules = [_rule("a", regex="a=([a-z]{8})", entropy=2.5), _rule("b", regex="b=([a-z]+)", path=r"\.env$")]
    engine = _engine(*rules, fallback=fallback)
    data = b"a=aaaaaaaa a=abcdefgh b=x"
    assert [one.rule.id for one in engine.detect(data, "x/.env")] == ["a", "b"]
    assert [one.rule.id for one in engine.detect(data, "x/.envs")] == ["a"]
    assert entropy(b"abcdefgh") == 3.0


@BOTH
def test_a_rule_of_paths_finds_the_document_itself(*, fallback: bool) -> None:
    engine = _engine(_rule(path=r"\.p12$"), fallback=fallback)
    (found,) = engine.detect(b"", "keys/a.p12")
    assert (found.start, found.end, found.secret_start, found.secret_end) == (0, 0, 0, 0)
    assert not engine.detect(b"x", "keys/a.p12.txt")


@pytest.mark.parametrize(
    ("allowed", "data", "path", "is_found"),
    [
        (Allowlist(paths=(r"^test/",)), b"key=abc", "test/a", False),
        (Allowlist(paths=(r"^test/",)), b"key=abc", "src/a", True),
        (Allowlist(commits=("ABC",)), b"key=abc", "a", False),
        (Allowlist(regexes=("^abc$",)), b"key=abc", "a", False),
        (Allowlist(regexes=("^(?i)xyz|abd$",)), b"key=abc", "a", True),
        (Allowlist(regexes=("^key",), target="match"), b"key=abc", "a", False),
        (Allowlist(regexes=("# ok$",), target="line"), b"x\nkey=abc # ok\ny", "a", False),
        (Allowlist(regexes=("# ok",), target="line"), b"# ok\nkey=abc\n# ok", "a", True),
        (Allowlist(stopwords=("BC",)), b"key=abc", "a", False),
        (Allowlist(stopwords=tuple(f"word{n}" for n in range(99))), b"key=aword77b", "a", False),
        (Allowlist(paths=("^a$",), regexes=("abc",), condition="all"), b"key=abc", "a", False),
        (Allowlist(paths=("^b$",), regexes=("abc",), condition="all"), b"key=abc", "a", True),
        (Allowlist(paths=("^a$",), stopwords=("zz",), condition="all"), b"key=abc", "a", True),
        (Allowlist(), b"key=abc", "a", True),
    ],
)
def test_allowlists_mean_what_those_of_gitleaks_mean(
    allowed: Allowlist, data: bytes, path: str, *, is_found: bool
) -> None:
    rule = _rule(regex="key=([a-z0-9]+)")
    of_rule = _engine(_rule(regex=rule.regex, allow=(allowed,)))
    of_all = _engine(rule, allow=(allowed,))
    for engine in (of_rule, of_all):
        assert bool(engine.detect(data, path, "abc")) is is_found


@pytest.mark.parametrize(
    ("required", "is_found"),
    [
        (Required(rule="id"), True),
        (Required(rule="id", within_lines=1), False),
        (Required(rule="id", within_lines=2), True),
        (Required(rule="id", within_lines=2, within_columns=1), False),
        (Required(rule="id", within_lines=2, within_columns=4), True),
    ],
)
def test_a_rule_stands_only_with_what_it_requires(required: Required, *, is_found: bool) -> None:
    engine = _engine(_rule("id", regex="id=[0-9]+"), _rule("key", regex="key=[a-z]+", requires=(required,)))
    assert ("key" in {one.rule.id for one in engine.detect(b"\n    id=1\n\nkey=abc")}) is is_found
    assert not engine.detect(b"key=abc")


@BOTH
def test_a_generic_detection_gives_way_to_a_specific_one(*, fallback: bool) -> None:
    generic = _rule("generic", regex=r"token ?= ?(\w{8,})", generic=True)
    engine = _engine(generic, _rule("own", regex=r"\b(acme_\w{8})\b"), fallback=fallback)
    found = engine.detect(b"token = acme_12345678\ntoken = 3141592653")
    assert [one.rule.id for one in found] == ["own", "generic"]


def test_engines_of_several_threads_find_the_same() -> None:
    engine = _engine(_rule(regex=r"key_[a-z]{4,9}\b"))
    data = b"key_abcdef key_xyz1 " * 2000
    expected = engine.detect(data)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: engine.clone().detect(data) == expected, range(12)))


def test_nothing_is_found_in_nothing(engine: Engine) -> None:
    assert engine.detect(b"") == []
    assert engine.detect(memoryview(b"")) == []
    assert engine.detect(bytes(range(256)) * 50) == []
