from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scanner.shipped import every_rule, expanded, faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.ruleset.model import SampledRule


def _samples(rule: SampledRule, templates: tuple[str, ...], kind: str) -> list[bytes]:
    return [expanded(rule, one, f"{rule.id} {kind} {at}").encode() for at, one in enumerate(templates)]


def _path(rule: SampledRule) -> str:
    """Return a path that the rule is for: the simplest reading of its expression."""
    return "".join(one for one in rule.path.split("|")[0] if one.isalnum() or one in "._-/") if rule.path else "a.txt"


def test_every_example_is_found(engine: Engine) -> None:
    def check(rule: SampledRule) -> Iterator[str]:
        for number, sample in enumerate(_samples(rule, rule.examples, "example")):
            found = {one.rule.id for one in engine.detect(sample)}
            if rule.id not in found and not _is_shadowed(engine, rule, sample):
                yield f"example {number} is not found, but {sorted(found)}: {sample!r}"

    wrong = faults([rule for rule in every_rule() if rule.regex and not rule.path], check)
    assert not wrong, wrong


def test_no_counter_example_is_found(engine: Engine) -> None:
    def check(rule: SampledRule) -> Iterator[str]:
        for number, sample in enumerate(_samples(rule, rule.counter_examples, "counter")):
            if rule.id in {one.rule.id for one in engine.detect(sample, _path(rule))}:
                yield f"counter-example {number} is found: {sample!r}"

    wrong = faults([rule for rule in every_rule() if rule.regex], check)
    assert not wrong, wrong


@pytest.mark.parametrize(
    "text",
    [
        "joined := o.bindParamPathRepeatedUint64Value(reg)",
        "if o == nil || o.SecretScanningEnabledForNewRepos == nil {",
        "FromGnostic(s.Oauth2AccessCodeSecurity)",
        '"$ref": "#/definitions/com:acme:service:common:NodeHealthCheckService"',
        "kind: Secret\ndata:\n  ca.crt: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tQVRUQUNLRVI=\n",
        'privateKeyTypeURL = "type.googleapis.com/google.crypto.tink.JwtRsaSsaPkcs1PrivateKey"',
    ],
)
def test_what_is_named_in_code_and_a_certificate_are_no_keys(engine: Engine, text: str) -> None:
    assert not engine.detect(text.encode(), "a.txt")


def test_an_example_is_found_in_the_middle_of_a_large_document(engine: Engine) -> None:
    around = b"\n" + b"lorem ipsum dolor sit amet\n" * 200

    def spans(rule: SampledRule, data: bytes, moved: int) -> list[tuple[int, int]]:
        mine = [one for one in engine.detect(data) if one.rule.id == rule.id]
        return [(one.secret_start - moved, one.secret_end - moved) for one in mine]

    def check(rule: SampledRule) -> Iterator[str]:
        sample = _samples(rule, rule.examples[:1], "example")[0]
        alone, within = spans(rule, sample, 0), spans(rule, around + sample + around, len(around))
        if alone != within:
            yield f"is at {alone} of {sample!r}, and at {within} of the same in a large document"

    # Those of paths and of company depend on more than what stands there.
    rules = [rule for rule in every_rule() if rule.regex and not (rule.path or rule.requires) and rule.examples]
    wrong = faults(rules, check)
    assert not wrong, wrong


def _is_shadowed(engine: Engine, rule: SampledRule, sample: bytes) -> bool:
    """Tell whether a generic rule gave way to one that knows more."""
    return rule.generic and any(not one.rule.generic for one in engine.detect(sample))
