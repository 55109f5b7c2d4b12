"""JUnit's XML, for what shows tests: a finding that blocks is a failure, an error of the scan is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from keyturn.scanner.reporting.options import next_step, path_of, printable, sentence
from keyturn.scanner.running import errors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.model import Finding, Report
    from keyturn.scanner.reporting.options import Options


def render(report: Report, options: Options) -> str:
    """Return the report as JUnit's XML; a run without findings is one test that passed."""
    errors = errors_of(report, strict=options.strict)
    blocked = sum(one.verdict == "block" for one in report.findings)
    cases = [line for finding in report.findings for line in _case(finding)]
    for notice in errors:
        message = quoteattr(_clean(f"{notice.problem}: {notice.detail}"))
        cases.append(f"    <testcase classname={_attribute(notice.path or 'scan')} name={_attribute(notice.problem)}>")
        cases.append(f"      <error message={message} type={quoteattr(notice.problem)}/>")
        cases.append("    </testcase>")
    count = len(report.findings) + len(errors)
    if not count:
        cases, count = ['    <testcase classname="keyturn" name="no leaked key was found"/>'], 1
    totals = f'tests="{count}" failures="{blocked}" errors="{len(errors)}" time="{report.seconds:.3f}"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites name="keyturn scan" {totals}>']
    lines += [f'  <testsuite name="keyturn scan" {totals}>', *cases, "  </testsuite>", "</testsuites>"]
    return "\n".join(lines) + "\n"


def _case(finding: Finding) -> Iterator[str]:
    place = finding.place
    path = path_of(place)
    name = f"{finding.rule.id} at line {place.line} ({finding.fingerprint})"
    attributes = f"classname={_attribute(path)} name={_attribute(name)} file={_attribute(place.path)}"
    yield f'    <testcase {attributes} line="{place.line}">'
    body = escape(_clean(f"{path}:{place.line}\n{finding.line_text}\nnext: {next_step(finding)}"))
    if finding.verdict == "block":
        kind = _attribute(finding.rule.id)
        yield f"      <failure message={_attribute(sentence(finding))} type={kind}>{body}</failure>"
    else:
        yield f"      <system-out>{body}</system-out>"
    yield "    </testcase>"


def _attribute(text: str) -> str:
    return quoteattr(printable(text))


def _clean(text: str) -> str:
    # XML 1.0 knows few control characters, not even escaped.
    return "\n".join(printable(line) for line in text.split("\n"))
