from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.samples import expand
from tests.scanner.shipped import FILES, every_rule, expanded, faults, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.ruleset.model import SampledRule

re2: Any = pytest.importorskip("re2")
SEEDS = 3


def pattern(rule: SampledRule) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(rule.regex.encode(), options)


def matches(rule: SampledRule, compiled: Any, text: str) -> bool:
    """Tell whether a rule's pattern and checksum take a text; the engine's further conditions have their own tests."""
    for found in compiled.finditer(text.encode()):
        group = rule.secret_group or next((n for n in range(1, len(found.groups()) + 1) if found.group(n)), 0)
        if not rule.checksum or CHECKSUMS[rule.checksum].verify(found.group(group)):
            return True
    return False


def texts(rule: SampledRule, templates: tuple[str, ...]) -> list[str]:
    return [expanded(rule, one, f"{rule.id}/{one}/{seed}") for one in templates for seed in range(SEEDS)]


def test_every_rule_is_in_a_file_that_is_tested() -> None:
    assert [rule for file in FILES for rule in rules_of(file)] == list(every_rule())
    assert all(rules_of(file) for file in FILES)


@pytest.mark.parametrize("file", FILES)
def test_rules_find_their_examples_and_not_their_counter_examples(file: str) -> None:
    def check(rule: SampledRule) -> Iterator[str]:
        if not rule.examples:
            yield "a rule without an example is untested"
        if not rule.counter_examples:
            yield "a rule without a counter-example takes anything for all we know"
        compiled = pattern(rule)
        for text in texts(rule, rule.examples):
            if not matches(rule, compiled, text):
                yield f"does not find its example {text!r}"
        for text in texts(rule, rule.counter_examples):
            if matches(rule, compiled, text):
                yield f"finds its counter-example {text!r}"

    wrong = faults([rule for rule in rules_of(file) if rule.regex], check)
    assert not wrong, wrong


def test_every_rule_is_well_formed() -> None:
    known = {rule.id for rule in every_rule()}

    def check(rule: SampledRule) -> Iterator[str]:
        title = rule.title
        right = {
            "its id is of another form": re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", rule.id),
            "it looks for nothing": rule.regex or rule.path,
            "its title is no title": title[0].isupper() or title[0].isdigit() or title.startswith(rule.provider),
            "a keyword is short or not in lower case": all(
                word == word.lower() and len(word) >= 3 for word in rule.keywords
            ),
            "its checksum is unknown": not rule.checksum or rule.checksum in CHECKSUMS,
            "its source is no address": not rule.source or rule.source.startswith("https://"),
            "it requires a rule that there is not": all(one.rule in known for one in rule.requires),
        }
        yield from (fault for fault, is_right in right.items() if not is_right)

    wrong = faults(every_rule(), check)
    assert not wrong, wrong


def test_the_same_seed_makes_the_same_sample() -> None:
    assert expand("{{base62:40}} {{uuid}}", "a") == expand("{{base62:40}} {{uuid}}", "a")
    assert expand("{{base62:40}}", "a") != expand("{{base62:40}}", "b")
    assert expand("{{base64(user:{{lower:4}})}}", "a") == expand("{{base64(user:{{lower:4}})}}", "a")


@pytest.mark.parametrize("template", ["{{nothing:3}}", "{{rot13(x)}}", "{{check}}"])
def test_a_template_that_names_something_unknown_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"no |unknown|checksum"):
        expand(template, "a")
