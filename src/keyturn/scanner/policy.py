"""Whether a key may stand where it stands: a small file of ordered rules, `.keyturn/leaks.toml`.

    version = 1

    [[rule]]                          # the first rule that applies decides
    name = "keys of the sandbox may stand in tests"
    environments = ["test"]
    contexts = ["test", "fixture"]
    verdict = "warn"                  # block, warn or allow
    until = 2027-06-30                # the last day on which the rule holds; optional
    reason = "they open an empty account"

A condition that is left out holds for everything; one that names several holds when one of them does.
After the rules of the file come those in `DEFAULT_RULES`, unless the file says `defaults = false`; then what no rule
applies to is blocked.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from keyturn.errors import InputError
from keyturn.scanner.model import Context
from keyturn.scanner.patterns import name_matches, path_matches
from keyturn.scanner.ruleset.model import Kind
from keyturn.scanner.tables import read_tables
from keyturn.wire.certainty import Certainty

if TYPE_CHECKING:
    from keyturn.scanner.model import Finding

Verdict = Literal["block", "warn", "allow"]
Patterns = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(min_length=1)]

VERSION: Final = 1
UNKNOWN: Final = "unknown"
"""The environment of a key that neither its format nor a server tells the environment of."""

_BUNDLES: Final = (Context.CLIENT_BUNDLE, Context.SOURCE_MAP)
_SHOWN: Final = (Context.TEST, Context.FIXTURE, Context.EXAMPLE, Context.DOCUMENTATION)


class PolicyRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One rule: what it applies to, and its verdict."""

    verdict: Verdict
    name: str = ""
    certainties: tuple[Certainty, ...] | None = None
    kinds: tuple[Kind, ...] | None = None
    environments: Patterns | None = None
    contexts: tuple[Context, ...] | None = None
    works: bool | None = None
    paths: Patterns | None = None
    rules: Patterns | None = None
    providers: Patterns | None = None
    until: date | None = None
    reason: str = ""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules in force, in their order."""

    rules: tuple[PolicyRule, ...]

    def verdict_of(self, finding: Finding, today: date) -> Verdict:
        """Return the verdict of the first rule that applies; `block` when none does."""
        return next((rule.verdict for rule in self.rules if applies(rule, finding, today)), "block")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    defaults: bool = True
    rule: tuple[PolicyRule, ...] = ()


DEFAULT_RULES: Final = (
    PolicyRule(name="a key that works no more, as the server says, is worth a look", works=False, verdict="warn"),
    PolicyRule(
        name="a publishable key may stand in what is sent to clients",
        kinds=(Kind.PUBLISHABLE,),
        contexts=_BUNDLES,
        verdict="allow",
    ),
    PolicyRule(name="a publishable key is worth a look elsewhere", kinds=(Kind.PUBLISHABLE,), verdict="warn"),
    PolicyRule(
        name="a test key may stand in tests and documentation",
        environments=("test",),
        contexts=_SHOWN,
        verdict="warn",
    ),
    PolicyRule(
        name="what merely looks like a secret is worth a look in tests and documentation",
        certainties=(Certainty.GENERIC,),
        contexts=_SHOWN,
        verdict="warn",
    ),
    PolicyRule(name="everything else is blocked", verdict="block"),
)
"""What holds without a policy file, and after its rules."""


def default_policy() -> Policy:
    """Return the policy that holds without a file."""
    return Policy(rules=DEFAULT_RULES)


def applies(rule: PolicyRule, finding: Finding, today: date) -> bool:
    """Tell whether every condition of a rule holds for a finding."""
    place = finding.place
    path = "/".join((place.path, *place.members))
    environment = finding.environment or UNKNOWN
    return (
        (rule.until is None or today <= rule.until)
        and (rule.certainties is None or finding.certainty in rule.certainties)
        and (rule.kinds is None or finding.rule.kind in rule.kinds)
        and (rule.environments is None or any(name_matches(one, environment) for one in rule.environments))
        and (rule.contexts is None or not finding.contexts.isdisjoint(rule.contexts))
        and (rule.works is None or rule.works is (finding.owner is None or finding.owner.works))
        and (rule.paths is None or any(path_matches(one, path) for one in rule.paths))
        and (rule.rules is None or any(name_matches(one, finding.rule.id) for one in rule.rules))
        and (rule.providers is None or any(name_matches(one, finding.rule.provider) for one in rule.providers))
    )


def read_policy(text: str, name: str) -> Policy:
    """Read a policy file; raises InputError that names the line, the rule and the field."""
    tables = read_tables(text, name)
    if tables.get("version") != VERSION:
        hint = f"write `version = {VERSION}` on its first line"
        raise InputError(f"{name} has version {tables.get('version')!r}; expected {VERSION}", field=name, hint=hint)
    try:
        file = msgspec.convert(tables, _File)
    except msgspec.ValidationError as error:
        raise _located(text, name, tables, str(error)) from None
    return Policy(rules=(*file.rule, *(DEFAULT_RULES if file.defaults else ())))


_AT: Final = r"(?s)(.*?)(?: - at `\$(?:\.rule\[(\d+)\])?\.?([\w.]*)[^`]*`)?$"
_UNKNOWN_FIELD: Final = r"unknown field `(\w+)`"


def _located(text: str, name: str, tables: dict[str, Any], message: str) -> InputError:
    found = re.match(_AT, message)
    what, index, key = (found[1], found[2], found[3]) if found else (message, None, "")
    unknown = re.search(_UNKNOWN_FIELD, what)
    key = unknown[1] if unknown else key.partition(".")[0]
    if index is None:
        index = _rule_with_fault(tables)
    from keyturn.wire.choices import choices_at  # no scan waits for it

    hint = choices_at(PolicyRule, what, key)
    line = _line_of(text, None if index is None else int(index), key)
    where = f"{name}, line {line}" + ("" if index is None else f", rule {int(index) + 1}")
    return InputError(f"{where}: {what[:1].lower()}{what[1:]}", field=key or name, hint=hint)


def _rule_with_fault(tables: dict[str, Any]) -> str | None:
    # msgspec names every index `[...]`; the first rule that does not convert by itself is the one.
    rules = tables.get("rule")
    for index, table in enumerate(rules if isinstance(rules, list) else ()):
        try:
            msgspec.convert(table, PolicyRule)
        except msgspec.ValidationError:
            return str(index)
    return None


def _line_of(text: str, index: int | None, key: str) -> int:
    """Return the line of a key in the rule of that index, or of the rule, counted from 1."""
    header, begin, seen = re.compile(r"\s*\[\[\s*rule\s*\]\]"), 1, -1
    sought = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]") if key else None
    for number, line in enumerate(text.splitlines(), 1):
        if header.match(line):
            seen += 1
            if seen == index:
                begin = number
            elif index is not None and seen > index:
                break
        elif sought is not None and sought.match(line) and (index is None or seen == index):
            return number
    return begin
