"""Annotations of GitHub Actions: workflow commands, one a line, with what they would obey escaped.

Source: GitHub, "Workflow commands for GitHub Actions"; the escapes are those of its toolkit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.scanner.reporting.options import next_step, printable, sentence
from keyturn.scanner.running import errors_of

if TYPE_CHECKING:
    from keyturn.scanner.model import Finding, Report
    from keyturn.scanner.reporting.options import Options

_LEVELS: Final = {"block": "error", "warn": "warning"}


def render(report: Report, options: Options) -> str:
    """Return one command for each finding, and for each thing that was not scanned."""
    lines = [_annotation(finding) for finding in report.findings]
    errors = errors_of(report, strict=options.strict)
    for notice in report.notices:
        level = "error" if notice in errors else "notice"
        where = f" file={_property(notice.path)},title=not scanned" if notice.path else " title=not scanned"
        lines.append(f"::{level}{where}::{_message(f'{notice.problem}: {notice.detail}')}")
    return "".join(f"{line}\n" for line in lines)


def _annotation(finding: Finding) -> str:
    place = finding.place
    title = _property(f"leaked key: {finding.rule.id}")
    where = f"file={_property(place.path)},line={place.line},endLine={max(place.line, place.end_line)},title={title}"
    text = _message(f"{sentence(finding)}. Next: {next_step(finding)}. Fingerprint: {finding.fingerprint}")
    return f"::{_LEVELS.get(finding.verdict, 'notice')} {where}::{text}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(printable(text)).replace(":", "%3A").replace(",", "%2C")
