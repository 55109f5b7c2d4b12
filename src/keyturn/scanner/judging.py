"""What was hit, made into findings: each once, in an order, and judged by comments, baseline, owner and policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from keyturn.kernel.secret import Secret
from keyturn.scanner.fingerprints import Fingerprints
from keyturn.scanner.ignores import ANYTHING
from keyturn.scanner.model import Context, Finding, Owner, Place
from keyturn.wire.certainty import Certainty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date

    from keyturn.scanner.baseline import Baseline
    from keyturn.scanner.examination import Hit
    from keyturn.scanner.policy import Policy

Owners: TypeAlias = "Callable[[Sequence[Finding]], Sequence[tuple[Certainty, Owner] | None]]"
"""Asks a server whose the secrets are: one answer for each finding, None when it knows none."""

BY_BASELINE: Final = "baseline"
BY_COMMENT: Final = "comment"


class Judges(msgspec.Struct, frozen=True, kw_only=True):
    """What findings are judged by; `contexts` are added to those of every finding."""

    policy: Policy
    today: date
    fingerprints: Fingerprints = msgspec.field(default_factory=Fingerprints)
    baseline: Baseline | None = None
    comments: bool = True
    contexts: frozenset[Context] = frozenset()
    owners: Owners | None = None


def judge(hits: Iterable[Hit], judges: Judges) -> tuple[list[Finding], list[Finding]]:
    """Return the findings to report, and those that were judged before or are allowed; both in order.

    The `verdict` of the latter says by what: `baseline`, `comment` or `allow`.
    """
    plain = Fingerprints()
    chosen = _each_once(hits, judges.fingerprints)
    findings = _owned([_finding(hit, name, judges.contexts) for name, hit in chosen], judges.owners)
    reported: list[Finding] = []
    ignored: list[Finding] = []
    for (_, hit), finding in sorted(zip(chosen, findings, strict=True), key=lambda pair: _order(pair[1])):
        verdict = _before(hit, finding, judges, plain) or judges.policy.verdict_of(finding, judges.today)
        judged = msgspec.structs.replace(finding, verdict=verdict)
        (reported if verdict in {"block", "warn"} else ignored).append(judged)
    return reported, ignored


def content_of(hit: Hit) -> bytes:
    """Return what a fingerprint is of: the secret, or the path when a rule is of paths alone."""
    return hit.secret or hit.place.path.encode("utf-8", "surrogatepass")


def _each_once(hits: Iterable[Hit], fingerprints: Fingerprints) -> list[tuple[str, Hit]]:
    chosen: dict[tuple[object, ...], tuple[str, Hit]] = {}
    for hit in hits:
        name = fingerprints.of(hit.rule, content_of(hit))
        key = (name, *_identity(hit.place))
        known = chosen.get(key)
        if known is None or _first(hit.place) < _first(known[1].place):
            chosen[key] = (name, hit)
    return list(chosen.values())


def _identity(place: Place) -> tuple[object, ...]:
    # In a history a file has the same secret in many versions: what counts is the first one.
    return (place.path, place.members, "history" if place.commit else place.line)


def _first(place: Place) -> tuple[float, int, int, int, str]:
    return (place.committed_at or 0.0, len(place.encodings), place.line, place.column, place.commit)


def _finding(hit: Hit, fingerprint: str, contexts: frozenset[Context]) -> Finding:
    return Finding(
        rule=hit.rule,
        certainty=hit.certainty,
        secret=Secret(hit.secret),
        masked=hit.masked,
        fingerprint=fingerprint,
        place=hit.place,
        contexts=hit.contexts | contexts,
        environment=hit.rule.environment,
        line_text=hit.line_text,
    )


def _owned(findings: list[Finding], owners: Owners | None) -> list[Finding]:
    if owners is None or not findings:
        return findings
    known = owners(findings)
    return [_with_owner(finding, told) for finding, told in zip(findings, known, strict=True)]


def _with_owner(finding: Finding, told: tuple[Certainty, Owner] | None) -> Finding:
    if told is None:
        return finding
    certainty, owner = told
    environment = owner.environment or finding.environment
    return msgspec.structs.replace(finding, certainty=certainty, owner=owner, environment=environment)


def _before(hit: Hit, finding: Finding, judges: Judges, plain: Fingerprints) -> str:
    """Return by what a finding was judged before; empty when it was not."""
    if judges.comments and hit.allowed:
        # A comment may have been written before there was a baseline with a salt.
        names = {finding.fingerprint, plain.of(hit.rule, content_of(hit)), ANYTHING}
        if not hit.allowed.isdisjoint(names):
            return BY_COMMENT
    if judges.baseline is not None and judges.baseline.accepts(finding.fingerprint, judges.today):
        return BY_BASELINE
    return ""


def _order(finding: Finding) -> tuple[object, ...]:
    place = finding.place
    return (place.path, place.members, place.line, place.column, finding.rule.id, place.commit, finding.fingerprint)
