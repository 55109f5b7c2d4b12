"""What a server is asked and told about a scan: whose the keys are, and what was found.

Only digests of values leave this machine, and only of keys of Keyturn's own format and of values of at least 20
characters.  What is shorter is reported under a digest of its place.

A server that cannot be asked is an error of the scan, and what was found without it is reported all the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.cli.session import open_session
from keyturn.errors import KeyturnError, ThrottledError
from keyturn.kernel.clock import Clock, rfc3339
from keyturn.scanner.matching import candidate_of
from keyturn.scanner.model import Notice, Owner, Problem
from keyturn.scanner.ruleset.model import HELD_WORD
from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import CANDIDATES_MAX, FINDINGS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keyturn.cli.scan_options import ScanOptions
    from keyturn.cli.session import Session
    from keyturn.scanner.matching import Candidate
    from keyturn.scanner.model import Finding, Report

BYTES_PER_REPORT: Final = 2 * 1024 * 1024
"""Of findings; a server takes twice that in all."""
ATTEMPTS: Final = 5
_TEXT_MAX: Final = 500
_WORD_MAX: Final = 128
_PATH_MAX: Final = 4000
_SERVER: Final = "the server"


class _Match(msgspec.Struct, frozen=True):
    index: int
    certainty: Certainty
    owner: str
    environment: str
    state: str
    works: bool
    finding: str | None = None
    keyspace: str | None = None
    key: str | None = None
    secret_path: str | None = None
    field: str | None = None
    next_command: str | None = None


class _Matches(msgspec.Struct, frozen=True):
    matches: tuple[_Match, ...]


class Asked(msgspec.Struct):
    """Asks a server about findings; what went wrong is kept for the report."""

    session: Session
    notices: list[Notice] = []

    def __call__(self, findings: Sequence[Finding]) -> list[tuple[Certainty, Owner] | None]:
        """Return whose each secret is, None when the server knows none."""
        places: dict[Candidate, list[int]] = {}
        for index, finding in enumerate(findings):
            candidate = candidate_of(finding.secret)
            if candidate is not None:
                places.setdefault(candidate, []).append(index)
        known: list[tuple[Certainty, Owner] | None] = [None] * len(findings)
        try:
            for candidate, told in self._matches(list(places)):
                for index in places[candidate]:
                    known[index] = told
        except KeyturnError as error:
            self.notices.append(Notice(Problem.UNREADABLE, _SERVER, f"it could not be asked: {error.message}"))
        except msgspec.ValidationError:
            self.notices.append(Notice(Problem.UNREADABLE, _SERVER, "its answer cannot be read"))
        return known

    def _matches(self, candidates: list[Candidate]) -> Iterator[tuple[Candidate, tuple[Certainty, Owner]]]:
        for start in range(0, len(candidates), CANDIDATES_MAX):
            part = candidates[start : start + CANDIDATES_MAX]
            body = {"candidates": [_asked(one) for one in part]}
            answered = msgspec.convert(_patiently(self.session, "/leaks/match", body), _Matches)
            for match in answered.matches:
                if 0 <= match.index < len(part):
                    yield part[match.index], (match.certainty, _owner(match))


def report_findings(
    session: Session, report: Report, *, source: str, kind: str, started_at: float, next_due_seconds: int | None
) -> list[Notice]:
    """Tell a server what was found, also when that is nothing; returns what went wrong."""
    told = [_told(one, source) for one in report.findings]
    summary = {
        "documents": report.documents,
        "bytes": report.bytes,
        "findings": len(report.findings),
        "ignored": len(report.ignored),
        "notices": len(report.notices),
    }
    try:
        for part in parts_of(told):
            body: dict[str, Any] = {
                "source": source,
                "kind": kind,
                "started_at": rfc3339(started_at),
                "summary": summary,
                "findings": part,
            }
            if next_due_seconds is not None:
                body["next_due_seconds"] = next_due_seconds
            _patiently(session, "/findings", body)
    except KeyturnError as error:
        return [Notice(Problem.UNREADABLE, _SERVER, f"it could not be told: {error.message}")]
    return []


def parts_of(told: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return findings in parts that a server takes at once, by number and size; one empty part when there is none."""
    parts: list[list[dict[str, Any]]] = [[]]
    size = 0
    for one in told:
        bytes_of_one = len(msgspec.json.encode(one))
        if parts[-1] and (len(parts[-1]) == FINDINGS_MAX or size + bytes_of_one > BYTES_PER_REPORT):
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += bytes_of_one
    return parts


def _patiently(session: Session, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 -- JSON
    import time

    for attempt in range(ATTEMPTS):
        try:
            return session.post(path, body).json
        except ThrottledError as error:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(min(60.0, error.retry_after_seconds or 1.0))
    return None


def _asked(candidate: Candidate) -> dict[str, Any]:
    asked: dict[str, Any] = {"digest": candidate.digest, "length": candidate.length}
    return asked | ({"version": candidate.version} if candidate.version else {})


def _owner(match: _Match) -> Owner:
    return Owner(
        finding=match.finding or "",
        keyspace=match.keyspace or "",
        key=match.key or "",
        secret_path=match.secret_path or "",
        field=match.field or "",
        owner=match.owner,
        environment=match.environment,
        state=match.state,
        works=match.works,
        next_command=match.next_command or "",
    )


def _told(finding: Finding, source: str) -> dict[str, Any]:
    place, candidate = finding.place, candidate_of(finding.secret)
    told: dict[str, Any] = {
        "rule": _line(finding.rule.id, _WORD_MAX),
        "provider": _line(finding.rule.provider, _WORD_MAX),
        "title": _line(finding.rule.title, _TEXT_MAX),
        "certainty": finding.certainty.value,
        "masked": _line(finding.masked, _TEXT_MAX),
        "digest": _digest_of_place(finding, source) if candidate is None else candidate.digest,
        "length": max(1, len(finding.secret)) if candidate is None else candidate.length,
        "place": {
            "path": _line(place.path, _PATH_MAX),
            "line": place.line,
            "commit": place.commit,
            "members": [_line(one, _PATH_MAX) for one in place.members[:16]],
            "encodings": list(place.encodings[:16]),
        },
        "contexts": sorted(one.value for one in finding.contexts),
        "environment": _line(finding.environment, _WORD_MAX),
        "verdict": finding.verdict,
    }
    return told | ({"version": candidate.version} if candidate is not None and candidate.version else {})


def _digest_of_place(finding: Finding, source: str) -> str:
    """Return what a value is known by that is too short for its digest to be told."""
    place = finding.place
    parts = ("place", source, finding.rule.id, place.path, *place.members, finding.masked)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _line(text: str, most: int) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:most]


def without_words(report: Report) -> None:
    """Take words out that the server does not hold."""
    report.findings = [one for one in report.findings if one.rule.id != HELD_WORD.id or one.owner is not None]
    report.ignored = [one for one in report.ignored if one.rule.id != HELD_WORD.id or one.owner is not None]


class Server(msgspec.Struct):
    """A server that a scan asks, and tells when `source` names what it was of."""

    session: Session
    asked: Asked
    kind: str
    source: str | None
    next_due_seconds: int | None
    started_at: float

    @classmethod
    def of(cls, options: ScanOptions) -> Server:
        """Open a session by the settings; raises KeyturnError when there is no token."""
        session = open_session()
        started_at = Clock().now()
        return cls(session, Asked(session), _kind(options), options.source, options.next_due_seconds, started_at)

    def known(self, report: Report) -> None:
        """Complete a report by what the server said, and tell it what was found."""
        without_words(report)
        report.notices += self.asked.notices
        if self.source is not None:
            report.notices += report_findings(
                self.session,
                report,
                source=self.source,
                kind=self.kind,
                started_at=self.started_at,
                next_due_seconds=self.next_due_seconds,
            )


def _kind(options: ScanOptions) -> str:
    modes = {
        "staged": options.staged,
        "worktree": options.worktree,
        "range": options.commits is not None,
        "history": options.history,
        "log": options.log,
        "stream": options.paths == ("-",),
    }
    return next((name for name, chosen in modes.items() if chosen), "folder")
