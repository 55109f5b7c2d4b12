"""A baseline: findings that were judged, by fingerprint, so that only new ones are reported.

    version = 1
    salt = "8f0c…"                      # fingerprints of this file are made under it

    [findings.0b6d…]                    # in the order of fingerprints, so that merges seldom conflict
    rule = "stripe-secret-key"          # for people; what matches is the fingerprint alone
    path = "deploy/old.yaml"            # likewise
    until = 2027-06-30                  # the last day on which it holds; optional
    reason = "revoked, and kept as evidence"

A finding is recognised wherever it moves, and is a new one when its secret changes.
"""

from __future__ import annotations

import json
import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from keyturn.errors import InputError
from keyturn.kernel.secret import random_bytes
from keyturn.scanner.fingerprints import PATTERN, SALT_BYTES
from keyturn.scanner.tables import read_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.scanner.model import Finding

_HEADING: Final = "# Findings of `keyturn scan` that were judged. Fields that are for people: rule, path, reason.\n"
_SALT: Final = rf"^[0-9a-f]{{{2 * SALT_BYTES}}}(?!\n)$"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One finding that was judged; `until` is the last day on which that holds."""

    rule: str = ""
    path: str = ""
    until: date | None = None
    reason: str = ""


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Findings that were judged, by their fingerprint under the salt."""

    version: Literal[1] = 1
    salt: Annotated[str, Meta(pattern=_SALT)]
    findings: dict[str, Entry] = {}

    def accepts(self, fingerprint: str, today: date) -> bool:
        """Tell whether a finding was judged, and that still holds."""
        entry = self.findings.get(fingerprint)
        return entry is not None and (entry.until is None or today <= entry.until)


def new_baseline() -> Baseline:
    """Return an empty baseline with a salt of its own."""
    return Baseline(salt=random_bytes(SALT_BYTES).hex())


def read_baseline(text: str, name: str) -> Baseline:
    """Read a baseline; raises InputError that names the entry and what is wrong with it."""
    try:
        found = msgspec.convert(read_tables(text, name), Baseline)
    except msgspec.ValidationError as error:
        hint = "write it anew with --write-baseline"
        raise InputError(f"{name} is no baseline: {error}", field=name, hint=hint) from None
    for fingerprint in found.findings:
        if not re.fullmatch(PATTERN, fingerprint):
            raise InputError(f"{name}: {fingerprint[:64]!r} is not a fingerprint", field=name)
    return found


def updated(baseline: Baseline, findings: Iterable[Finding]) -> Baseline:
    """Return the baseline of these findings: `until` and `reason` stay with those that are still found."""
    entries: dict[str, Entry] = {}
    for finding in findings:
        known = baseline.findings.get(finding.fingerprint, Entry())
        place = "!".join((finding.place.path, *finding.place.members))
        told = entries.get(finding.fingerprint)
        path = place if told is None else min(told.path, place)
        entries[finding.fingerprint] = Entry(rule=finding.rule.id, path=path, until=known.until, reason=known.reason)
    return Baseline(salt=baseline.salt, findings=entries)


def stale_entries(baseline: Baseline, findings: Iterable[Finding]) -> list[str]:
    """Return the fingerprints that were not found any more, in order; what they name can be taken out."""
    return sorted(baseline.findings.keys() - {one.fingerprint for one in findings})


def write_baseline(baseline: Baseline) -> str:
    """Return the text of a baseline: the same findings always give the same text."""
    parts = [_HEADING, f"version = {baseline.version}\nsalt = {_quoted(baseline.salt)}\n"]
    for fingerprint, entry in sorted(baseline.findings.items()):
        lines = [f"\n[findings.{fingerprint}]", f"rule = {_quoted(entry.rule)}", f"path = {_quoted(entry.path)}"]
        if entry.until is not None:
            lines.append(f"until = {entry.until.isoformat()}")
        if entry.reason:
            lines.append(f"reason = {_quoted(entry.reason)}")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _quoted(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode()
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")
