from __future__ import annotations

import pytest

from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.model import SampledRule
from keyturn.scanner.ruleset.samples import expand

RULES = shipped_rules()
WITH_REGEX = [rule for rule in RULES if rule.regex]


def _samples(rule: SampledRule, templates: tuple[str, ...], kind: str) -> list[bytes]:
    check_of = CHECKSUMS[rule.checksum].check_of if rule.checksum else None
    return [expand(one, f"{rule.id} {kind} {at}", check_of).encode() for at, one in enumerate(templates)]


def _path(rule: SampledRule) -> str:
    """Return a path that the rule is for: the simplest reading of its expression."""
    return "".join(one for one in rule.path.split("|")[0] if one.isalnum() or one in "._-/") if rule.path else "a.txt"


@pytest.mark.parametrize("rule", WITH_REGEX, ids=lambda rule: rule.id)
def test_every_example_is_found(engine: Engine, rule: SampledRule) -> None:
    if rule.path:
        pytest.skip("its examples need a path")
    for number, sample in enumerate(_samples(rule, rule.examples, "example")):
        found = {one.rule.id for one in engine.detect(sample)}
        assert rule.id in found or _is_shadowed(engine, rule, sample), f"example {number} of {rule.id}"


@pytest.mark.parametrize("rule", WITH_REGEX, ids=lambda rule: rule.id)
def test_no_counter_example_is_found(engine: Engine, rule: SampledRule) -> None:
    for number, sample in enumerate(_samples(rule, rule.counter_examples, "counter")):
        found = {one.rule.id for one in engine.detect(sample, _path(rule))}
        assert rule.id not in found, f"counter-example {number} of {rule.id}"


@pytest.mark.parametrize("rule", WITH_REGEX, ids=lambda rule: rule.id)
def test_an_example_is_found_in_the_middle_of_a_large_document(engine: Engine, rule: SampledRule) -> None:
    if rule.path or rule.requires or not rule.examples:
        pytest.skip("it depends on more than what stands there")
    sample = _samples(rule, rule.examples, "example")[0]
    alone = [one for one in engine.detect(sample) if one.rule.id == rule.id]
    around = b"\n" + b"lorem ipsum dolor sit amet\n" * 200
    moved = [one for one in engine.detect(around + sample + around) if one.rule.id == rule.id]
    spans = [(one.secret_start + len(around), one.secret_end + len(around)) for one in alone]
    assert [(one.secret_start, one.secret_end) for one in moved] == spans


def _is_shadowed(engine: Engine, rule: SampledRule, sample: bytes) -> bool:
    """Tell whether a generic rule gave way to one that knows more."""
    return rule.generic and any(not one.rule.generic for one in engine.detect(sample))
