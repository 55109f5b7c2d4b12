"""The rules that ship with Keyturn, read from their data files.

A data file is TOML: an array `rule` of tables with the fields of `SampledRule`.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import InputError
from keyturn.scanner.ruleset.model import Rule, Ruleset, SampledRule
from keyturn.scanner.tables import read_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = "data"


def shipped_rules() -> list[SampledRule]:
    """Return every rule that ships with Keyturn, in the order of files and their contents.

    Raises:
        InputError: a file is malformed, or two rules have the same id.

    """
    rules = [rule for name, text in _files() for rule in parse_rules(text, name)]
    seen: set[str] = set()
    for rule in rules:
        if rule.id in seen:
            raise InputError(f"two rules are called {rule.id}", field="id")
        seen.add(rule.id)
    return rules


def shipped_ruleset() -> Ruleset:
    """Return the rules that ship with Keyturn as they are used: without their samples."""
    return Ruleset(name="keyturn", rules=tuple(without_samples(rule) for rule in shipped_rules()))


def parse_rules(text: str, name: str) -> list[SampledRule]:
    """Read the rules of one data file; raises InputError that names the rule and the field."""
    tables = read_tables(text, name).get("rule", [])
    if not isinstance(tables, list):
        raise InputError(f"{name}: rule has to be an array of tables, as [[rule]] is", field=name)
    rules = []
    for table in tables:
        try:
            rules.append(msgspec.convert(table, SampledRule))
        except msgspec.ValidationError as error:
            told = table.get("id", "?") if isinstance(table, dict) else "?"
            raise InputError(f"rule {told} of {name}: {error}", field=name) from None
    return rules


def without_samples(rule: SampledRule) -> Rule:
    """Return the rule itself."""
    return Rule(**{name: getattr(rule, name) for name in Rule.__struct_fields__})


def _files() -> Iterator[tuple[str, str]]:
    folder = resources.files(__package__).joinpath(DATA)
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.name.endswith(".toml"):
            yield entry.name, entry.read_text("utf-8")
