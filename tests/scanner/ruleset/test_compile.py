from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

import pytest

from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.model import SampledRule
from keyturn.scanner.ruleset.samples import expand

re2: Any = pytest.importorskip("re2")
hyperscan: Any = pytest.importorskip("hyperscan")

RULES = [rule for rule in shipped_rules() if rule.regex]
SEEDS = 2

SHARED = frozenset({frozenset({"atlassian", "bitbucket"})})
"""Pairs of providers whose keys cannot be told apart by their format."""

ANY_PROVIDER = frozenset({"", "generic", "keyturn"})
"""What rules of shapes say, which take keys of every provider."""


@cache
def compiled(regex: str) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(regex.encode(), options)


def secrets(rule: SampledRule, text: bytes) -> list[bytes]:
    """Return what a rule takes of a text: its pattern, its checksum and its entropy."""
    taken = []
    for found in compiled(rule.regex).finditer(text):
        group = rule.secret_group or next((n for n in range(1, len(found.groups()) + 1) if found.group(n)), 0)
        secret = found.group(group)
        if rule.checksum and not CHECKSUMS[rule.checksum].verify(secret):
            continue
        if rule.entropy and entropy(secret) <= rule.entropy:
            continue
        if any(compiled(regex).search(secret) for one in rule.allow for regex in one.regexes if one.target == "secret"):
            continue
        taken.append(secret)
    return taken


def entropy(secret: bytes) -> float:
    return -sum(n / len(secret) * math.log2(n / len(secret)) for n in Counter(secret).values())


def samples(rule: SampledRule) -> list[bytes]:
    check_of = CHECKSUMS[rule.checksum].check_of if rule.checksum else None
    return [
        expand(one, f"{rule.id}/{one}/{seed}/apart", check_of).encode()
        for one in rule.examples
        for seed in range(SEEDS)
    ]


def hits(database: Any, text: bytes) -> set[int]:
    found: set[int] = set()
    database.scan(text, match_event_handler=lambda one, *_: found.add(one))
    return found


@pytest.fixture(scope="module", name="database")
def every_rule() -> Any:
    made = hyperscan.Database()
    flags = [hyperscan.HS_FLAG_SINGLEMATCH] * len(RULES)
    made.compile(expressions=[rule.regex.encode() for rule in RULES], ids=list(range(len(RULES))), flags=flags)
    return made


def test_hyperscan_takes_every_pattern_as_it_stands_and_finds_its_examples(database: Any) -> None:
    for index, rule in enumerate(RULES):
        for text in samples(rule):
            assert index in hits(database, text), f"hyperscan does not find {rule.id} in {text!r}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_re2_takes_a_pattern_in_latin_1(rule: SampledRule) -> None:
    assert compiled(rule.regex).groups >= rule.secret_group
    for one in rule.allow:
        for regex in (*one.regexes, *one.paths):
            compiled(regex)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_an_example_passes_entropy_and_allowlists_and_holds_a_keyword_and_fits_the_window(rule: SampledRule) -> None:
    for text in samples(rule):
        assert secrets(rule, text), text
        found = compiled(rule.regex).search(text)
        match = found.group(0).lower().decode("latin-1")
        assert not rule.keywords or any(word in match for word in rule.keywords), text
        assert found.end() - found.start() <= rule.window


def test_no_rule_of_another_provider_claims_an_example(database: Any) -> None:
    """A key that two providers claim would be revoked at the wrong one."""
    clashes = [
        f"{RULES[index].id} claims {text!r} of {rule.id}"
        for rule in RULES
        for text in samples(rule)
        for index in hits(database, text)
        if differ(rule, RULES[index]) and claimed(RULES[index], text, secrets(rule, text))
    ]
    assert not clashes


def differ(rule: SampledRule, other: SampledRule) -> bool:
    """Tell whether two rules are of providers that must not claim each other's keys."""
    pair = frozenset({rule.provider, other.provider})
    return len(pair) == 2 and not pair & ANY_PROVIDER and pair not in SHARED and not other.generic


def claimed(other: SampledRule, text: bytes, mine: list[bytes]) -> bool:
    return any(one in own or own in one for one in secrets(other, text) for own in mine)
