"""Rule files that a user names: ours have `[[rule]]`, those of gitleaks `[[rules]]` or `[extend]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from keyturn.errors import InputError
from keyturn.scanner.ruleset.model import Ruleset, SampledRule
from keyturn.scanner.tables import read_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

SHIPPED: Final = "keyturn"
"""Names the rules that ship with Keyturn, where files are named."""


def given_ruleset(names: Sequence[str], *, gitleaks_default: Path | None = None) -> Ruleset:
    """Return the rules of all these files together; of two with the same id the later one counts.

    What a file allows holds for its own rules.

    Raises:
        InputError: a file cannot be read or is malformed; names the rule.

    """
    sets = [_shipped() if name == SHIPPED else read_ruleset(Path(name), gitleaks_default) for name in names]
    if len(sets) == 1:
        return sets[0]
    rules = {rule.id: replace(rule, allow=(*rule.allow, *one.allow)) for one in sets for rule in one.rules}
    marks = tuple(dict.fromkeys(mark for one in sets for mark in one.inline_allow))
    return Ruleset(name="+".join(one.name for one in sets), rules=tuple(rules.values()), inline_allow=marks)


def read_ruleset(path: Path, gitleaks_default: Path | None = None) -> Ruleset:
    """Return the rules of one file, whichever kind it is."""
    text = _read(path)
    if is_ours(text, str(path)):
        from keyturn.scanner.ruleset.load import without_samples

        return Ruleset(name=path.name, rules=tuple(without_samples(rule) for rule in our_rules(text, str(path))))
    from keyturn.scanner.ruleset.gitleaks import read_gitleaks

    return read_gitleaks(
        text,
        name=path.name,
        read_extended=lambda name: _read(Path(name)),
        default=None if gitleaks_default is None else lambda: _read(gitleaks_default),
    )


def is_ours(text: str, name: str) -> bool:
    """Tell whether a file is one of our own; raises InputError when it is not TOML."""
    return "rule" in read_tables(text, name)


def our_rules(text: str, name: str) -> list[SampledRule]:
    """Return the rules of one of our own files, with their samples; raises InputError that names the rule."""
    from keyturn.scanner.ruleset.load import parse_rules

    rules = parse_rules(text, name)
    seen: set[str] = set()
    for rule in rules:
        if rule.id in seen:
            raise InputError(f"{name}: two rules are called {rule.id}", field=name)
        seen.add(rule.id)
    return rules


def _shipped() -> Ruleset:
    from keyturn.scanner.ruleset.load import shipped_ruleset

    return shipped_ruleset()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"the rule file {str(path)!r} cannot be read: {error.strerror}", field=str(path)) from None
    except UnicodeDecodeError:
        raise InputError(f"the rule file {str(path)!r} is not UTF-8", field=str(path)) from None
