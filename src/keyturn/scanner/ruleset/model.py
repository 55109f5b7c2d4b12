"""A rule: what a leaked key looks like, and what is known of it.

Regular expressions are in RE2's syntax and match bytes (Latin-1), so that their time is linear in their input.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

WINDOW_DEFAULT = 2048


class Kind(StrEnum):
    """What a match is."""

    SECRET = "secret"  # noqa: S105 -- the name of a kind
    PUBLISHABLE = "publishable"
    """Made to stand in a client: a publishable or site key."""


class Allowlist(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a match is not reported for; the meaning is that of gitleaks' allowlists.

    `condition` joins the lists that are given: `any` of them, or one of `all` of them.
    `target` is what `regexes` are searched in.  `stopwords` are searched in the secret, in lower case.
    """

    description: str = ""
    condition: Literal["any", "all"] = "any"
    paths: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    regexes: tuple[str, ...] = ()
    target: Literal["secret", "match", "line"] = "secret"
    stopwords: tuple[str, ...] = ()


class Required(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Another rule that has to match near by: within so many lines and columns, or anywhere in the document."""

    rule: str
    within_lines: int | None = None
    within_columns: int | None = None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One rule.

    id            lower case with dashes: provider, then what it is
    regex         what matches; empty for a rule of paths alone
    secret_group  which group is the secret; 0: the first one that matched, or the whole match when there is none
    family        what fingerprints are made under, so that they outlive a rule's renaming; empty: the id
    environment   `production`, `test` or empty: what the format itself says
    entropy       the secret's Shannon entropy in bits a character has to be above it; 0: not looked at
    checksum      a name in `checksums`: a match whose check is wrong is none
    keywords      in lower case; one of them has to stand in the document, whatever its case.  In a rule of ours one
                  stands in every match; in a foreign one it may stand anywhere else
    window        most bytes that a match can be long
    path          the document's path has to match it
    generic       its findings are of certainty `generic`, and give way to another rule's; ours are weighed by name,
                  entropy and characters
    component     it counts only as what another rule requires, and is not reported itself
    revoke        a page or command by which a holder revokes one
    source        where the format is documented
    """

    id: str
    title: str
    regex: str = ""
    provider: str = ""
    family: str = ""
    kind: Kind = Kind.SECRET
    environment: Literal["", "production", "test"] = ""
    severity: Literal["low", "medium", "high", "critical"] = "high"
    secret_group: int = 0
    entropy: float = 0.0
    checksum: str = ""
    keywords: tuple[str, ...] = ()
    window: int = WINDOW_DEFAULT
    path: str = ""
    generic: bool = False
    component: bool = False
    allow: tuple[Allowlist, ...] = ()
    requires: tuple[Required, ...] = ()
    about: str = ""
    revoke: str = ""
    source: str = ""


HELD_WORD = Rule(id="held-secret", title="A secret that is held", severity="critical", generic=True)
"""The rule of words that a server may hold as a secret; see `keyturn.scanner.words`."""


class Ruleset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Rules that are used together, and what none of them reports.

    `inline_allow` are comments that keep a line from being reported, as a foreign rule file has them.
    """

    name: str
    rules: tuple[Rule, ...]
    allow: tuple[Allowlist, ...] = ()
    inline_allow: tuple[str, ...] = ()


class SampledRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A rule as its data file has it: with samples that it has to find, and others that it must not.

    Samples are templates, see `samples`, so that no file of ours holds what a scanner would report.
    """

    examples: tuple[str, ...] = ()
    counter_examples: tuple[str, ...] = ()
