"""`keyturn rules`: what the scanner looks for, and a check of rules of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.ruleset.model import Rule, SampledRule

NOTHING_WRONG: Final = 0
SOMETHING_WRONG: Final = 1
_SEEDS: Final = 3
_SHOWN: Final = ("id", "title", "provider", "kind", "environment", "severity", "checksum", "about", "revoke", "source")


@click.group(cls=Commands)
def rules() -> None:
    """See what the scanner looks for, and check rules of your own."""


@rules.command("list")
@click.option("--provider", help="Only the rules of this provider.")
@click.option("--file", "file", type=click.Path(dir_okay=False), help="The rules of this file, of ours or of gitleaks.")
@json_option
def list_rules(*, provider: str | None, file: str | None, as_json: bool) -> None:
    """List rules: those that ship with Keyturn, or those of a file."""
    found = [_described(rule) for rule in _rules(file) if provider in {None, rule.provider}]
    emit(
        found,
        as_json=as_json,
        human=lambda rows: f"{table(rows, 'id', 'provider', 'kind', 'severity', 'title')}\n{len(rows)} rules",
    )


@rules.command()
@click.argument("rule_id", metavar="ID")
@json_option
def show(*, rule_id: str, as_json: bool) -> None:
    """Show one rule that ships with Keyturn, with made-up examples of what it finds."""
    from keyturn.scanner.ruleset.load import shipped_rules

    rule = next((one for one in shipped_rules() if one.id == rule_id), None)
    if rule is None:
        raise NotFoundError(f"no rule is called {rule_id!r}", hint="keyturn rules list names them all")
    document = {**_described(rule), "regex": rule.regex, "path": rule.path, "entropy": rule.entropy}
    document["examples"] = [text for text, _ in _texts(rule, rule.examples, seeds=1)]
    emit({name: value for name, value in document.items() if value}, as_json=as_json, human=fields)


@rules.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
def check(*, files: tuple[str, ...]) -> int:
    """Check rule FILES, of ours or of gitleaks: every rule is understood, and finds its examples and no other.

    It ends with 1 when a rule does not do what its examples say, with 2 when a file cannot be used.
    """
    from keyturn.scanner.engine.open import open_engine
    from keyturn.scanner.ruleset.given import is_ours, our_rules, read_ruleset

    wrong = 0
    for file in files:
        found = read_ruleset(Path(file))
        engine = open_engine(found, cache=None)
        text = Path(file).read_text("utf-8")
        sampled = our_rules(text, file) if is_ours(text, file) else []
        faults = [fault for rule in sampled for fault in _faults(rule, engine)]
        for fault in faults:
            click.echo(f"{file}: {fault}")
        click.echo(f"{file}: {len(found.rules)} rules, {len(faults)} faults")
        wrong += len(faults)
    return SOMETHING_WRONG if wrong else NOTHING_WRONG


def _rules(file: str | None) -> list[Rule]:
    if file is not None:
        from keyturn.scanner.ruleset.given import read_ruleset

        return list(read_ruleset(Path(file)).rules)
    from keyturn.scanner.ruleset.load import shipped_rules

    return list(shipped_rules())


def _described(rule: Rule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in _SHOWN}


def _texts(rule: SampledRule, templates: tuple[str, ...], *, seeds: int = _SEEDS) -> Iterator[tuple[str, str]]:
    from keyturn.scanner.ruleset.checksums import CHECKSUMS
    from keyturn.scanner.ruleset.samples import expand

    check_of = CHECKSUMS[rule.checksum].check_of if rule.checksum in CHECKSUMS else None
    for template in templates:
        for seed in range(seeds):
            yield expand(template, f"{rule.id}/{template}/{seed}", check_of), template


def _faults(rule: SampledRule, engine: Engine) -> Iterator[str]:
    """Yield what a rule does otherwise than its samples say; a sample is named by its template."""
    try:
        examples = list(_texts(rule, rule.examples))
        others = list(_texts(rule, rule.counter_examples))
    except ValueError as error:
        yield f"{rule.id}: {error}"
        return
    for template in dict.fromkeys(template for text, template in examples if not _finds(engine, rule, text)):
        yield f"{rule.id}: does not find its example {template!r}"
    for template in dict.fromkeys(template for text, template in others if _finds(engine, rule, text)):
        yield f"{rule.id}: finds its counter-example {template!r}"


def _finds(engine: Engine, rule: SampledRule, text: str) -> bool:
    return any(one.rule.id == rule.id for one in engine.detect(text.encode(), "sample"))
