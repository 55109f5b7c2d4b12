"""Findings: ask whose values are, report what a scan found, look at findings, and decide about them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from keyturn.access.caller import Resource
from keyturn.access.moments import epoch_of, require_revision
from keyturn.access.paging import page
from keyturn.access.system import system_operation
from keyturn.errors import ThrottledError, not_found
from keyturn.kernel import tokenformat
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import is_id, new_id
from keyturn.kernel.redact import REDACTED, scrub
from keyturn.kernel.token_bucket import TokenBuckets
from keyturn.leaks import rules, store
from keyturn.leaks.answers import finding_detail, finding_info, finding_reported, leak_match, scan_info
from keyturn.leaks.matching import Question
from keyturn.leaks.model import Place, ReportedOutside, Scan, Sighting, finding_resource
from keyturn.leaks.recording import Recording, event_of, notice_of
from keyturn.leaks.standing import works
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.certainty import Certainty
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.leaks import (
    PLACES_SHOWN_MAX,
    FindingDetail,
    FindingFilter,
    FindingPage,
    LeakAction,
    LeakMatches,
    LeakScanPage,
    Origin,
    ScanReported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.kernel.secret import Secret
    from keyturn.leaks.matching import Matching
    from keyturn.leaks.model import Finding, Known, Taken
    from keyturn.storage.transaction import Transaction
    from keyturn.wire.leaks import DecideFinding, LeakMatch, MatchLeaks, ReportedFinding, ReportFindings

REPORT: Final = Resource(finding_resource("report"))
MATCH: Final = Resource(finding_resource("match"))
MATCHED_AT_ONCE: Final = 1000
"""How many candidates are compared in one look at the database."""
ASKED_PER_SECOND: Final = 500.0
ASKED_BURST: Final = 50_000.0
"""How many values a principal may ask about: whoever asks can test guesses."""
_TEXT_MAX: Final = 512


class LeakService:
    """The operations on findings."""

    def __init__(
        self, door: Door, matching: Matching, *, per_second: float = ASKED_PER_SECOND, burst: float = ASKED_BURST
    ) -> None:
        """Need the door and what compares values; each worker lets a principal ask about so many."""
        self._door = door
        self._matching = matching
        self._asked = TokenBuckets[str](per_second, burst, door.database.clock.boottime)
        self._recording = Recording(matching)

    async def match(self, credentials: Credentials, request: MatchLeaks) -> LeakMatches:
        """Tell which values are issued keys or held secrets; that it was asked is on record before it is answered.

        Raises ThrottledError for a principal that has asked about too many.
        """
        found: list[LeakMatch] = []
        for start in range(0, len(request.candidates), MATCHED_AT_ONCE):
            part = request.candidates[start : start + MATCHED_AT_ONCE]
            questions = [Question(bytes.fromhex(one.digest), one.version, one.length) for one in part]
            count = len(request.candidates) if start == 0 else 0

            def look(
                op: Operation, questions: list[Question] = questions, start: int = start, count: int = count
            ) -> Sequence[LeakMatch]:
                op.authorise(Action.FINDING_MATCH, MATCH)
                self._admit(op.caller.principal, count)
                return self._matches(op, questions, start)

            found += await self._door.read(credentials, look)

        def record(op: Operation) -> None:
            op.authorise(Action.FINDING_MATCH, MATCH)
            detail: dict[str, Detail] = {"candidates": len(request.candidates)}
            for certainty in (Certainty.OWN, Certainty.HELD):
                detail[str(certainty)] = sum(one.certainty is certainty for one in found)
            op.record(Action.FINDING_MATCH, MATCH.name, kind=ChangeKind.AUDIT, entity="", detail=detail)

        await self._door.write(credentials, record)
        return LeakMatches(matches=tuple(found))

    async def report(self, credentials: Credentials, request: ReportFindings) -> ScanReported:
        """Keep what a scan found, and do what the policies say; reported again, a value is the same finding."""
        started_at = epoch_of(request.started_at, "started_at") or 0.0
        sightings = [_sighting(one) for one in request.findings]

        def work(op: Operation) -> ScanReported:
            op.authorise(Action.FINDING_REPORT, REPORT)
            self._admit(op.caller.principal, max(1, len(sightings)))
            taken = self._recording.take(op, request.source, Origin.SCAN, sightings, Action.FINDING_REPORT)
            due = None if request.next_due_seconds is None else op.now + request.next_due_seconds
            scan = Scan(
                id=new_id("lks", op.now),
                workspace=op.workspace,
                source=request.source,
                kind=request.kind,
                principal=op.caller.principal,
                started_at=started_at,
                reported_at=op.now,
                next_due_at=due,
                summary=dict(request.summary),
            )
            store.insert_scan(op.connection, scan)
            detail = _counts(taken) | {"source": scan.source, "kind": str(scan.kind), "scan": scan.id}
            op.record(Action.FINDING_REPORT, REPORT.name, kind=ChangeKind.FINDING, entity=scan.id, detail=detail)
            return ScanReported(
                id=scan.id, findings=tuple(finding_reported(op, place, one) for place, one in enumerate(taken))
            )

        return (await self._door.write(credentials, work)).value

    async def reported_outside(
        self,
        workspace: str,
        *,
        origin: str,
        presented: Secret,
        place: Mapping[str, Any],
        source: str,
        ip: str | None = None,
    ) -> ReportedOutside:
        """Take a value that somebody outside of the workspace showed, such as a partner or its holder.

        `workspace` is an id, `origin` one of `wire.leaks.Origin`, `place` may hold `path` (or `url`), `line` and
        `commit`.  Whoever calls it has decided that this may be reported.  A value that is nobody's here leaves nothing
        behind.  Without a policy a key that its holder reported is revoked, and any other is notified of.
        """
        whence = Origin(origin)
        sighting = _outside(presented, place, source, whence)
        question = Question(sighting.sha256, sighting.version, sighting.length)

        def known(connection: Connection, now: float) -> Known | None:
            answer = self._matching.match(connection, workspace, [question], now).get(0)
            return None if answer is None else answer.known

        def work(transaction: Transaction) -> ReportedOutside:
            op = system_operation(transaction, workspace, ip=ip)
            found = known(op.connection, op.now)
            if found is None:
                return ReportedOutside(matched=False)
            (taken,) = self._recording.take(op, source, whence, [sighting], Action.SYSTEM_LEAK_REPORT)
            return _told(taken.finding, op.now, working=found.works)

        # Looked at first: what somebody outside has made up must not cost a write.
        database = self._door.database
        if await database.read(lambda connection: known(connection, database.clock.now())) is None:
            return ReportedOutside(matched=False)
        return (await database.write(work)).value

    async def show(self, credentials: Credentials, finding_id: str) -> FindingDetail:
        """Show a finding with the places it was seen at last, and its history."""

        def work(op: Operation) -> FindingDetail:
            return _detail(op, authorised_finding(op, Action.FINDING_READ, finding_id))

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        wanted: FindingFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> FindingPage:
        """List findings, oldest first."""
        given = FindingFilter() if wanted is None else wanted
        conditions = store.narrowed(
            state=given.state,
            certainty=given.certainty,
            key=given.key,
            secret=given.secret,
            owner=given.owner,
            source=given.source,
            keyspace=given.keyspace,
        )

        def visible(op: Operation, one: Finding) -> bool:
            if not op.allows(Action.FINDING_READ, Resource(one.resource)):
                return False
            # Else who may not list secrets could ask which path a finding is about.
            return given.secret is None or finding_info(op, one).secret_path is not None

        def work(op: Operation) -> FindingPage:
            found, following = page(
                op,
                lambda after, count: store.list_findings(op.connection, op.workspace, conditions, after, count),
                lambda one: visible(op, one),
                cursor,
                limit,
            )
            return FindingPage(items=tuple(finding_info(op, one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def decide(
        self, credentials: Credentials, finding_id: str, request: DecideFinding, *, if_match: int | None = None
    ) -> FindingDetail:
        """Confirm, dismiss, accept, reopen or close a finding; what was due is dropped where nothing is to be done.

        Raises ConflictError with code `still_works` when one is to be closed whose key or secret still works.
        """
        until = epoch_of(request.until, "until")

        def work(op: Operation) -> FindingDetail:
            found = authorised_finding(op, Action.FINDING_DECIDE, finding_id)
            require_revision(if_match, found.revision)
            working = works(op.connection, found, op.now)
            changed = rules.decided(found, request.decision, until, op.now, works=working)
            if changed == found:
                op.unchanged()
                return _detail(op, found)
            saved = replace(changed, revision=found.revision + 1)
            store.update_finding(op.connection, saved)
            said = {"was": str(found.state), "note": request.note, "until": "" if until is None else rfc3339(until)}
            detail = {name: value for name, value in said.items() if value}
            store.insert_events(op.connection, [(saved, [event_of(op, str(request.decision), detail)])])
            about: dict[str, Detail] = {**notice_of(saved), **detail, "decision": str(request.decision)}
            op.record(Action.FINDING_DECIDE, saved.resource, kind=ChangeKind.FINDING, entity=saved.id, detail=about)
            return _detail(op, saved)

        return (await self._door.write(credentials, work)).value

    async def list_scans(
        self,
        credentials: Credentials,
        *,
        source: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> LeakScanPage:
        """List the scans that were reported, oldest first; it takes the right to read the reports."""

        def work(op: Operation) -> LeakScanPage:
            op.authorise(Action.FINDING_READ, REPORT)
            last: dict[str, bool] = {}

            def fetch(after: str, count: int) -> list[Scan]:
                rows = store.list_scans(op.connection, op.workspace, source, after, count)
                last.update({one.id: newest for one, newest in rows})
                return [one for one, _ in rows]

            found, following = page(op, fetch, lambda _: True, cursor, limit)
            items = tuple(scan_info(one, op.now, last=last[one.id]) for one in found)
            return LeakScanPage(items=items, next_cursor=following)

        return await self._door.read(credentials, work)

    def _admit(self, principal: str, count: int) -> None:
        if not self._asked.take(principal, count):
            raise ThrottledError(
                f"{principal} has asked about too many values",
                retry_after_seconds=self._asked.wait_seconds(principal, count),
                hint="ask about those that changed since the last scan alone",
            )

    def _matches(self, op: Operation, questions: Sequence[Question], start: int) -> Sequence[LeakMatch]:
        answers = self._matching.match(op.connection, op.workspace, questions, op.now)
        places = sorted(answers)
        digests = [questions[place].sha256 for place in places]
        names = self._matching.fingerprints(op.connection, op.workspace, digests, None)
        findings = store.by_fingerprint(op.connection, op.workspace, names)
        known = {place: findings.get(name) for place, name in zip(places, names, strict=False)}
        return [
            leak_match(op, start + place, answers[place], None if (one := known.get(place)) is None else one.id)
            for place in places
        ]


def authorised_finding(op: Operation, action: Action, finding_id: str) -> Finding:
    """Load a finding for an action; one that the caller may not know of answers as if there were none."""
    shown = finding_id[:64]
    found = store.load_finding(op.connection, op.workspace, finding_id) if is_id("fnd", finding_id) else None
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="finding", name=shown, absent=Resource(finding_resource(shown)))
    if found is None:
        raise not_found("finding", shown)
    return found


def _detail(op: Operation, found: Finding) -> FindingDetail:
    places = store.list_places(op.connection, found, PLACES_SHOWN_MAX)
    return finding_detail(op, found, places, store.list_events(op.connection, found))


def _counts(taken: list[Taken]) -> dict[str, Detail]:
    unique = {one.finding.id: one for one in taken}.values()
    counts: dict[str, Detail] = {"findings": len(unique), "new": sum(one.new for one in unique)}
    for certainty in (Certainty.OWN, Certainty.HELD):
        counts[str(certainty)] = sum(one.finding.certainty is certainty for one in unique)
    return counts


def _sighting(given: ReportedFinding) -> Sighting:
    place = Place(
        path=given.place.path,
        line=given.place.line,
        commit=given.place.commit,
        members=given.place.members,
        encodings=given.place.encodings,
        contexts=given.contexts,
    )
    return Sighting(
        sha256=bytes.fromhex(given.digest),
        version=given.version,
        length=given.length,
        place=place,
        rule=given.rule,
        provider=given.provider,
        title=given.title,
        masked=given.masked,
        certainty=given.certainty,
        environment=given.environment,
        verdict=given.verdict,
    )


def _outside(presented: Secret, place: Mapping[str, Any], source: str, origin: Origin) -> Sighting:
    text = presented.reveal().strip()
    parsed = tokenformat.parse(text)
    line = place.get("line", 0)
    where = Place(
        path=_without(text, str(place.get("path") or place.get("url") or source)),
        line=line if isinstance(line, int) and line >= 0 else 0,
        commit=_without(text, str(place.get("commit", ""))),
        # What a partner has found, everybody can find.
        contexts=("public",) if origin is Origin.PARTNER else (),
    )
    return Sighting(
        sha256=tokenformat.sha256(text),
        version=None if parsed is None else str(parsed.version_id),
        length=len(text),
        place=where,
        rule="keyturn" if parsed is not None else "reported",
        title="Reported from outside",
        masked="" if parsed is None else f"{parsed.prefix}_{parsed.tag}_{parsed.version_id}…",
    )


def _without(value: str, where: str) -> str:
    """Return where a value was found as it may be kept: without the value, and without what a terminal would obey."""
    for written in {value, quote(value), quote(value, safe=""), quote_plus(value)}:
        where = where.replace(written, REDACTED)
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in scrub(where))[:_TEXT_MAX]


def _told(found: Finding, now: float, *, working: bool) -> ReportedOutside:
    ends = found.action in {LeakAction.DISABLE, LeakAction.REVOKE}
    return ReportedOutside(
        matched=True,
        finding=found.id,
        certainty=found.certainty,
        state=found.state,
        works=working,
        keyspace=found.keyspace,
        key=found.key,
        owner=found.owner,
        environment=found.environment,
        action=found.action,
        action_state=found.action_state,
        is_ending=ends and found.due_at is not None and found.due_at <= now,
    )
