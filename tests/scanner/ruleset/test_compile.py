from __future__ import annotations

import fcntl
import hashlib
import math
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from keyturn.scanner.cache import Cache
from keyturn.scanner.ruleset.checksums import CHECKSUMS
from tests.scanner.shipped import every_rule, expanded, faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyturn.scanner.ruleset.model import SampledRule

re2: Any = pytest.importorskip("re2")
hyperscan: Any = pytest.importorskip("hyperscan")

SEEDS = 2

SHARED = frozenset({frozenset({"atlassian", "bitbucket"})})
"""Pairs of providers whose keys cannot be told apart by their format."""

ANY_PROVIDER = frozenset({"", "generic", "keyturn"})
"""What rules of shapes say, which take keys of every provider."""


@cache
def with_regex() -> tuple[SampledRule, ...]:
    return tuple(rule for rule in every_rule() if rule.regex)


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
    return [
        expanded(rule, one, f"{rule.id}/{one}/{seed}/apart").encode() for one in rule.examples for seed in range(SEEDS)
    ]


def hits(database: Any, text: bytes) -> set[int]:
    found: set[int] = set()
    database.scan(text, match_event_handler=lambda one, *_: found.add(one))
    return found


@pytest.fixture(scope="module", name="database")
def patterns_as_they_stand(shared_rules_cache: Path) -> Any:
    """Return the patterns in hyperscan, compiled by the worker that asks first."""
    kept = Cache(shared_rules_cache / "as-they-stand")
    expressions = [rule.regex.encode() for rule in with_regex()]
    name = hashlib.sha256(b"\0".join(expressions)).hexdigest()
    with (shared_rules_cache / "as-they-stand.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kept.read(name) is None:
            made = hyperscan.Database()
            flags = [hyperscan.HS_FLAG_SINGLEMATCH] * len(expressions)
            made.compile(expressions=expressions, ids=list(range(len(expressions))), flags=flags)
            kept.write(name, hyperscan.dumpb(made))
        loaded = hyperscan.loadb(kept.read(name), hyperscan.HS_MODE_BLOCK)
    loaded.scratch = hyperscan.Scratch(loaded)
    return loaded


def test_hyperscan_takes_every_pattern_as_it_stands_and_finds_its_examples(database: Any) -> None:
    place = {rule.id: index for index, rule in enumerate(with_regex())}

    def check(rule: SampledRule) -> Iterator[str]:
        yield from (
            f"hyperscan does not find it in {text!r}"
            for text in samples(rule)
            if place[rule.id] not in hits(database, text)
        )

    wrong = faults(with_regex(), check)
    assert not wrong, wrong


def test_re2_takes_every_pattern_in_latin_1() -> None:
    def check(rule: SampledRule) -> Iterator[str]:
        if compiled(rule.regex).groups < rule.secret_group:
            yield f"there is no group {rule.secret_group}"
        for one in rule.allow:
            for regex in (*one.regexes, *one.paths):
                compiled(regex)

    wrong = faults(with_regex(), check)
    assert not wrong, wrong


def test_an_example_passes_entropy_and_allowlists_and_holds_a_keyword_and_fits_the_window() -> None:
    def check(rule: SampledRule) -> Iterator[str]:
        for text in samples(rule):
            if not secrets(rule, text):
                yield f"takes no secret of {text!r}"
            found = compiled(rule.regex).search(text)
            match = found.group(0).lower().decode("latin-1")
            if rule.keywords and not any(word in match for word in rule.keywords):
                yield f"has no keyword in {text!r}"
            if found.end() - found.start() > rule.window:
                yield f"its match is wider than {rule.window} in {text!r}"

    wrong = faults(with_regex(), check)
    assert not wrong, wrong


def test_no_rule_of_another_provider_claims_an_example(database: Any) -> None:
    """A key that two providers claim would be revoked at the wrong one."""

    def check(rule: SampledRule) -> Iterator[str]:
        for text in samples(rule):
            others = [with_regex()[index] for index in hits(database, text)]
            mine = secrets(rule, text)
            for other in others:
                if differ(rule, other) and claimed(other, text, mine):
                    yield f"{other.id} claims {text!r}"

    wrong = faults(with_regex(), check)
    assert not wrong, wrong


def differ(rule: SampledRule, other: SampledRule) -> bool:
    """Tell whether two rules are of providers that must not claim each other's keys."""
    pair = frozenset({rule.provider, other.provider})
    return len(pair) == 2 and not pair & ANY_PROVIDER and pair not in SHARED and not other.generic


def claimed(other: SampledRule, text: bytes, mine: list[bytes]) -> bool:
    return any(one in own or own in one for one in secrets(other, text) for own in mine)
