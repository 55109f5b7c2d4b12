"""CSV, for spreadsheets: RFC 4180, and no cell that one of them would take for a formula."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from keyturn.scanner.reporting.options import next_step, owner_of, printable, secret_text

if TYPE_CHECKING:
    from keyturn.scanner.model import Finding, Report
    from keyturn.scanner.reporting.options import Options

COLUMNS: Final = (
    "verdict",
    "path",
    "members",
    "line",
    "commit",
    "rule",
    "title",
    "provider",
    "certainty",
    "kind",
    "environment",
    "contexts",
    "masked",
    "owner",
    "fingerprint",
    "next",
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def render(report: Report, options: Options) -> str:
    """Return the findings as CSV with a heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*COLUMNS, "secret"] if options.reveal else COLUMNS)
    for finding in report.findings:
        writer.writerow([_cell(one) for one in _row(finding, options)])
    return out.getvalue()


def _row(finding: Finding, options: Options) -> list[str]:
    place, rule = finding.place, finding.rule
    row = [finding.verdict, place.path, "!".join(place.members), str(place.line), place.commit, rule.id, rule.title]
    row += [rule.provider, finding.certainty, rule.kind, finding.environment, " ".join(sorted(finding.contexts))]
    row += [finding.masked, owner_of(finding), finding.fingerprint, next_step(finding)]
    return [*row, secret_text(finding)] if options.reveal else row


def _cell(text: str) -> str:
    clean = printable(text)
    # An apostrophe makes it text: OWASP, "CSV Injection".  After leading space it would still be a formula.
    return f"'{clean}" if clean.lstrip().startswith(_FORMULA) else clean
