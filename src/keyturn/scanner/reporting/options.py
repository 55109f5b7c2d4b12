"""What all forms of a report have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from keyturn.scanner.model import Finding, Place

REVEALING: Final = frozenset({"text", "json", "csv"})
"""Forms that hold secrets when asked to."""
COMMIT_SHOWN: Final = 12
"""How much of a commit's name people are shown."""


class Options(msgspec.Struct, frozen=True):
    """How to report.

    `strict` counts bounds among the errors, as the run did; `acceptance` tells people how to accept what is no secret.
    """

    reveal: bool = False
    strict: bool = False
    color: bool = False
    acceptance: bool = False


def path_of(place: Place) -> str:
    """Return a path and the members that lead on from it, as people read them."""
    return printable("!".join((place.path, *place.members)))


def printable(text: str) -> str:
    """Return a text with nothing in it that a terminal or a form would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def sentence(finding: Finding) -> str:
    """Say in one sentence what was found; without the secret."""
    title = finding.rule.title or finding.rule.id
    owner = owner_of(finding)
    whose = f", which is {owner}" if owner else ""
    commit = finding.place.commit[:COMMIT_SHOWN]
    where = f"{_kinds(finding)} of commit {commit}" if commit else _kinds(finding)
    return printable(f"{title}{whose} in {where} ({finding.masked or 'by its path'})")


def owner_of(finding: Finding) -> str:
    """Name the key or held secret that it is; empty when no server told."""
    owner = finding.owner
    if owner is None:
        return ""
    if owner.key:
        of = f" of {owner.owner}" if owner.owner else ""
        return printable(f"{owner.key} in {owner.keyspace}{of}, {owner.state or 'of unknown state'}")
    return printable(f"held as {owner.secret_path}#{owner.field}") if owner.secret_path else "held by this server"


def next_step(finding: Finding) -> str:
    """Return what to do next: a command when a server told one, else where the key is revoked."""
    if finding.owner is not None and finding.owner.next_command:
        return printable(finding.owner.next_command)
    if finding.owner is not None and not finding.owner.works:
        return "take it out when you are there anyway: it works no more"
    if finding.certainty == "own":
        return "keyturn scan --connect …, which tells whose key it is and how to revoke it"
    if finding.rule.revoke:
        return printable(f"revoke it: {finding.rule.revoke}")
    return "revoke it where it was issued, then take it out of the file and its history"


def secret_text(finding: Finding) -> str:
    """Return the secret itself, for a report that was asked to hold it."""
    return finding.secret.reveal_bytes().decode("utf-8", "backslashreplace")


def _kinds(finding: Finding) -> str:
    return ", ".join(sorted(finding.contexts)) or "a file"
