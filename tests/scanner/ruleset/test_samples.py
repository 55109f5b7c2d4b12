from __future__ import annotations

import re
from typing import Any

import pytest

from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.model import SampledRule
from keyturn.scanner.ruleset.samples import expand

re2: Any = pytest.importorskip("re2")
RULES = shipped_rules()
SEEDS = 3


def matches(rule: SampledRule, text: str) -> bool:
    """Tell whether a rule's pattern and checksum take a text; the engine's further conditions have their own tests."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    for found in re2.compile(rule.regex.encode(), options).finditer(text.encode()):
        group = rule.secret_group or next((n for n in range(1, len(found.groups()) + 1) if found.group(n)), 0)
        if not rule.checksum or CHECKSUMS[rule.checksum].verify(found.group(group)):
            return True
    return False


def texts(rule: SampledRule, templates: tuple[str, ...]) -> list[str]:
    check_of = CHECKSUMS[rule.checksum].check_of if rule.checksum else None
    return [expand(one, f"{rule.id}/{one}/{seed}", check_of) for one in templates for seed in range(SEEDS)]


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.regex], ids=lambda rule: rule.id)
def test_a_rule_finds_its_examples_and_not_its_counter_examples(rule: SampledRule) -> None:
    assert rule.examples, "a rule without an example is untested"
    assert rule.counter_examples, "a rule without a counter-example takes anything for all we know"
    for text in texts(rule, rule.examples):
        assert matches(rule, text), text
    for text in texts(rule, rule.counter_examples):
        assert not matches(rule, text), text


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_is_well_formed(rule: SampledRule) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", rule.id)
    assert rule.regex or rule.path
    assert rule.title[0].isupper() or rule.title[0].isdigit() or rule.title.startswith(rule.provider)
    assert all(word == word.lower() and len(word) >= 3 for word in rule.keywords)
    assert not rule.checksum or rule.checksum in CHECKSUMS
    assert not rule.source or rule.source.startswith("https://")
    assert rule.requires == () or all(one.rule in {other.id for other in RULES} for one in rule.requires)


def test_the_same_seed_makes_the_same_sample() -> None:
    assert expand("{{base62:40}} {{uuid}}", "a") == expand("{{base62:40}} {{uuid}}", "a")
    assert expand("{{base62:40}}", "a") != expand("{{base62:40}}", "b")
    assert expand("{{base64(user:{{lower:4}})}}", "a") == expand("{{base64(user:{{lower:4}})}}", "a")


@pytest.mark.parametrize("template", ["{{nothing:3}}", "{{rot13(x)}}", "{{check}}"])
def test_a_template_that_names_something_unknown_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"no |unknown|checksum"):
        expand(template, "a")
