"""SARIF 2.1.0, for code scanning: results without secrets, and nothing of who committed them.

`partialFingerprints` hold the keyed fingerprint, so a result is the same one when its line moves.  A column would be
one of bytes, which SARIF does not know, so regions are of lines.  Source: OASIS, SARIF Version 2.1.0, 2020.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from keyturn import __version__
from keyturn.scanner.judging import BY_COMMENT
from keyturn.scanner.reporting.options import next_step, path_of, sentence
from keyturn.scanner.running import errors_of

if TYPE_CHECKING:
    from keyturn.scanner.model import Finding, Report
    from keyturn.scanner.reporting.options import Options
    from keyturn.scanner.ruleset.model import Rule

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT_NAME: Final = "keyturnFingerprint/v1"
_LEVELS: Final = {"block": "error", "warn": "warning"}
_SCORES: Final = {"low": "3.0", "medium": "5.0", "high": "8.0", "critical": "9.5"}


def render(report: Report, options: Options) -> str:
    """Return the report as SARIF."""
    shown = [*report.findings, *report.ignored]
    rules = {one.rule.id: one.rule for one in shown}
    numbers = {name: number for number, name in enumerate(sorted(rules))}
    run = {
        "tool": {
            "driver": {
                "name": "Keyturn",
                "semanticVersion": __version__,
                "rules": [_rule(rules[name]) for name in numbers],
            }
        },
        "invocations": [_invocation(report, options)],
        "results": [_result(one, numbers[one.rule.id]) for one in shown],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    title = rule.title or rule.id
    described = {
        "id": rule.id,
        "name": rule.id,
        "shortDescription": {"text": title},
        "fullDescription": {"text": rule.about or title},
        "help": {"text": rule.about or f"{title}: revoke it where it was issued."},
        "defaultConfiguration": {"level": "error"},
        "properties": {
            "tags": ["security", "secret", *([rule.provider] if rule.provider else [])],
            "security-severity": _SCORES[rule.severity],
        },
    }
    link = next((one for one in (rule.revoke, rule.source) if one.startswith("https://")), "")
    return {**described, "helpUri": link} if link else described


def _invocation(report: Report, options: Options) -> dict[str, Any]:
    errors = errors_of(report, strict=options.strict)
    told = [
        {
            "level": "error" if one in errors else "note",
            "message": {"text": f"{one.problem}: {one.detail}"},
            "locations": _locations(one.path),
        }
        for one in report.notices
    ]
    return {"executionSuccessful": not errors, "toolExecutionNotifications": told}


def _result(finding: Finding, number: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "ruleIndex": number,
        "level": _LEVELS.get(finding.verdict, "note"),
        "message": {"text": f"{sentence(finding)}. Next: {next_step(finding)}"},
        "locations": [_location(finding)],
        "partialFingerprints": {FINGERPRINT_NAME: finding.fingerprint},
        "properties": {
            "certainty": finding.certainty,
            "verdict": finding.verdict,
            "contexts": sorted(finding.contexts),
            "environment": finding.environment,
        },
    }
    if finding.place.commit:
        result["properties"]["commit"] = finding.place.commit
    if finding.verdict not in _LEVELS:
        result["suppressions"] = [{"kind": "inSource" if finding.verdict == BY_COMMENT else "external"}]
    return result


def _location(finding: Finding) -> dict[str, Any]:
    place = finding.place
    location = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(place.path)},
            "region": {"startLine": place.line, "endLine": max(place.line, place.end_line)},
        }
    }
    if place.members:
        return {**location, "logicalLocations": [{"fullyQualifiedName": path_of(place), "kind": "member"}]}
    return location


def _locations(path: str) -> list[dict[str, Any]]:
    return [{"physicalLocation": {"artifactLocation": {"uri": _uri(path)}}}] if path else []


def _uri(path: str) -> str:
    return quote(path.encode("utf-8", "surrogateescape"), safe="/")
