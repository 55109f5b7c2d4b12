"""Everything there is, as one JSON document.

    {"version": 1, "tool": {}, "summary": {}, "findings": [], "ignored": [], "notices": [], "stale": [],
     "judged_by": []}

Within a version fields are added and never renamed or removed; the fields are listed in `docs/guides/scan.md`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn import __version__
from keyturn.kernel.clock import rfc3339
from keyturn.scanner.reporting.options import next_step, secret_text
from keyturn.scanner.running import errors_of

if TYPE_CHECKING:
    from keyturn.scanner.model import Finding, Owner, Place, Report
    from keyturn.scanner.reporting.options import Options

SCHEMA_VERSION: Final = 1


def render(report: Report, options: Options) -> str:
    """Return the report as JSON."""
    errors = errors_of(report, strict=options.strict)
    document = {
        "version": SCHEMA_VERSION,
        "tool": {"name": "keyturn", "version": __version__},
        "summary": {
            "blocked": sum(one.verdict == "block" for one in report.findings),
            "warned": sum(one.verdict == "warn" for one in report.findings),
            "ignored": len(report.ignored),
            "errors": len(errors),
            "documents": report.documents,
            "bytes": report.bytes,
            "seconds": round(report.seconds, 3),
        },
        "findings": [as_document(one, reveal=options.reveal) for one in report.findings],
        "ignored": [as_document(one, reveal=options.reveal) for one in report.ignored],
        "notices": [
            {"problem": one.problem, "path": one.path, "detail": one.detail, "error": one in errors}
            for one in report.notices
        ],
        "stale": report.stale,
        "judged_by": report.judged_by,
    }
    # ASCII alone, so that no text of a scanned file can disturb who reads it.
    return msgspec.json.format(json.dumps(document)) + "\n"


def as_document(finding: Finding, *, reveal: bool = False) -> dict[str, Any]:
    """Return one finding; the secret itself is in it only when asked for."""
    rule = finding.rule
    document: dict[str, Any] = {
        "fingerprint": finding.fingerprint,
        "verdict": finding.verdict,
        "rule": rule.id,
        "title": rule.title,
        "provider": rule.provider,
        "kind": rule.kind,
        "severity": rule.severity,
        "certainty": finding.certainty,
        "masked": finding.masked,
        "length": len(finding.secret),
        "place": _place(finding.place),
        "contexts": sorted(finding.contexts),
        "environment": finding.environment,
        "line": finding.line_text,
        "owner": None if finding.owner is None else _owner(finding.owner),
        "next": next_step(finding),
    }
    if reveal:
        document["secret"] = secret_text(finding)
    return document


def _place(place: Place) -> dict[str, Any]:
    return {
        "path": place.path,
        "members": list(place.members),
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "encodings": list(place.encodings),
        "blob": place.blob,
        "commit": place.commit,
        "committed_at": None if place.committed_at is None else rfc3339(place.committed_at),
    }


def _owner(owner: Owner) -> dict[str, str]:
    return {name: getattr(owner, name) for name in owner.__struct_fields__}
