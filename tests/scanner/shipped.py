"""The shipped rules as tests read them: once, a data file at a time, and every fault of every rule told together."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyturn.scanner import ruleset
from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.load import DATA, parse_rules, shipped_rules
from keyturn.scanner.ruleset.samples import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from keyturn.scanner.ruleset.model import SampledRule

FOLDER: Final = Path(ruleset.__file__).parent / DATA
FILES: Final = tuple(sorted(path.name for path in FOLDER.glob("*.toml")))
"""The data files by name: what a test is parametrised by, so that collecting tests reads no rule."""


@cache
def rules_of(file: str) -> tuple[SampledRule, ...]:
    """Return the rules of a data file."""
    return tuple(parse_rules((FOLDER / file).read_text("utf-8"), file))


@cache
def every_rule() -> tuple[SampledRule, ...]:
    """Return the rules of every data file."""
    return tuple(shipped_rules())


def expanded(rule: SampledRule, template: str, seed: str) -> str:
    """Return a sample of a rule, with the right check."""
    return expand(template, seed, CHECKSUMS[rule.checksum].check_of if rule.checksum else None)


def faults(rules: Iterable[SampledRule], check: Callable[[SampledRule], Iterable[str]]) -> str:
    """Return a line for everything that is wrong with a rule; an exception is told of, and the next rule checked."""
    lines: list[str] = []
    for rule in rules:
        try:
            for told in check(rule):
                lines.append(f"{rule.id}: {told}")  # noqa: PERF401 -- keeps what was told before an exception
        except Exception as error:  # noqa: BLE001 -- whatever a rule makes fail is a fault of that rule
            lines.append(f"{rule.id}: {type(error).__name__}: {error}")
    return "\n".join(lines)
