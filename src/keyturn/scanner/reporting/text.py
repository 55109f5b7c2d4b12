"""For people: where, what, whose, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.scanner.reporting.options import (
    COMMIT_SHOWN,
    Options,
    next_step,
    owner_of,
    path_of,
    printable,
    secret_text,
)
from keyturn.scanner.running import errors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.model import Finding, Notice, Report

_STALE_SHOWN: Final = 20
_ACCEPTANCE: Final = (
    "note: what is no secret is accepted by a comment on its line, keyturn:allow FINGERPRINT, "
    "or by a baseline, --write-baseline .keyturn/baseline.toml"
)
_COLORS: Final = {"block": "\x1b[1;31m", "warn": "\x1b[33m"}
_PLAIN: Final = "\x1b[0m"


def render(report: Report, options: Options) -> str:
    """Return the report as text."""
    lines = [line for finding in report.findings for line in (*_finding(finding, options), "")]
    lines += _notices(report, options)
    lines += _stale(report)
    lines += [f"note: judged by {printable(one)}" for one in report.judged_by]
    if report.findings and options.acceptance:
        lines.append(_ACCEPTANCE)
    lines.append(_summary(report, options))
    return "\n".join(lines) + "\n"


def _finding(finding: Finding, options: Options) -> Iterator[str]:
    place = finding.place
    verdict = finding.verdict.upper()
    if options.color and finding.verdict in _COLORS:
        verdict = f"{_COLORS[finding.verdict]}{verdict}{_PLAIN}"
    yield f"{path_of(place)}:{place.line}: {verdict} {printable(finding.rule.id)}"
    yield from (f"    {name:<12} {value}" for name, value in _fields(finding, options) if value)


def _fields(finding: Finding, options: Options) -> Iterator[tuple[str, str]]:
    place = finding.place
    yield "what", printable(finding.rule.title)
    yield "value", finding.masked
    if options.reveal:
        yield "secret", printable(secret_text(finding))
    yield "line", finding.line_text
    yield "encoded as", ", in ".join(reversed(place.encodings))
    yield "commit", printable(place.commit[:COMMIT_SHOWN])
    yield "context", ", ".join(sorted(finding.contexts))
    yield "environment", printable(finding.environment)
    yield "certainty", finding.certainty
    yield "whose", owner_of(finding)
    yield "fingerprint", finding.fingerprint
    yield "next", next_step(finding)


def _notices(report: Report, options: Options) -> Iterator[str]:
    errors = errors_of(report, strict=options.strict)
    for notice in report.notices:
        label = "error" if notice in errors else "note"
        yield f"{label}: {_told(notice)}"


def _told(notice: Notice) -> str:
    return printable(f"{notice.path or '(source)'}: {notice.problem}: {notice.detail}")


def _stale(report: Report) -> Iterator[str]:
    if report.stale:
        yield f"note: {len(report.stale)} entries of the baseline were not found any more; they can be taken out:"
        yield from (f"    {one}" for one in report.stale[:_STALE_SHOWN])
        if len(report.stale) > _STALE_SHOWN:
            yield f"    … and {len(report.stale) - _STALE_SHOWN} more; --format json lists them all"


def _summary(report: Report, options: Options) -> str:
    blocked = sum(finding.verdict == "block" for finding in report.findings)
    errors = len(errors_of(report, strict=options.strict))
    parts = [f"{blocked} to be acted on, {len(report.findings) - blocked} to look at"]
    if report.ignored:
        parts.append(f"{len(report.ignored)} judged before or allowed")
    if errors:
        parts.append(f"{errors} errors: what they name was not scanned")
    size = f"{report.documents} files, {report.bytes / 1e6:.1f} MB, {report.seconds:.2f} s"
    return f"{'; '.join(parts)} ({size})"
