"""Answers: findings, scans and policies as the wire types show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access.moments import shown
from keyturn.kernel.clock import rfc3339
from keyturn.leaks.rules import next_command
from keyturn.vault.paths import Path
from keyturn.wire.actions import Action
from keyturn.wire.leaks import (
    FindingDetail,
    FindingEvent,
    FindingInfo,
    FindingPlace,
    FindingReported,
    FindingState,
    LeakMatch,
    LeakPolicyInfo,
    LeakScanInfo,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Operation
    from keyturn.leaks.matching import Answer
    from keyturn.leaks.model import Event, Finding, Policy, Scan, SeenPlace, Taken


def finding_info(op: Operation, of: Finding) -> FindingInfo:
    """Show a finding as lists do; the path of a secret only to who may list it."""
    path = visible_path(op, of.secret_path)
    works = of.state is not FindingState.ROTATED
    return FindingInfo(
        id=of.id,
        state=of.state,
        certainty=of.certainty,
        origin=of.origin,
        rule=of.rule,
        provider=of.provider,
        title=of.title,
        masked=of.masked,
        environment=of.environment,
        owner=of.owner,
        keyspace=of.keyspace or None,
        key=of.key or None,
        version=of.version or None,
        secret_path=path,
        field=(of.field or None) if path is not None else None,
        sequence=(of.sequence or None) if path is not None else None,
        verdict=of.verdict,
        places_count=of.places_count,
        first_seen_at=rfc3339(of.first_seen_at),
        last_seen_at=rfc3339(of.last_seen_at),
        accepted_until=shown(of.accepted_until),
        closed_at=shown(of.closed_at),
        action=of.action,
        action_state=of.action_state,
        action_due_at=shown(of.due_at),
        attempts=of.attempts,
        last_error=of.last_error,
        policy=of.policy or None,
        next_command=next_command(of.certainty, of.key, path or "", works=works, owner=of.owner),
        revision=of.revision,
    )


def finding_detail(op: Operation, of: Finding, places: Sequence[SeenPlace], events: Sequence[Event]) -> FindingDetail:
    """Show a finding with where it was seen, and its history."""
    return FindingDetail(
        finding=finding_info(op, of),
        places=tuple(_place(one) for one in places),
        history=tuple(
            FindingEvent(at=rfc3339(one.at), actor=one.actor, event=one.event, detail=one.detail) for one in events
        ),
    )


def finding_reported(op: Operation, index: int, taken: Taken) -> FindingReported:
    """Show what became of one reported finding."""
    of = taken.finding
    return FindingReported(
        index=index,
        id=of.id,
        new=taken.new,
        certainty=of.certainty,
        state=of.state,
        owner=of.owner,
        environment=of.environment,
        keyspace=of.keyspace or None,
        key=of.key or None,
        secret_path=visible_path(op, of.secret_path),
        action=of.action,
        action_state=of.action_state,
    )


def leak_match(op: Operation, index: int, answer: Answer, finding: str | None) -> LeakMatch:
    """Show whose a value is; of the places that hold it, the first that the caller may list."""
    known = answer.known
    told = next((one for one in answer.held if op.allows(Action.SECRET_LIST, one.resource)), None)
    path = None if told is None else told.path
    return LeakMatch(
        index=index,
        certainty=known.certainty,
        works=known.works,
        state=known.state if told is None else told.state,
        environment=known.environment if told is None else told.environment,
        owner=known.owner if told is None else told.owner,
        finding=finding,
        keyspace=known.keyspace or None,
        key=known.key or None,
        version=known.version or None,
        secret_path=path,
        field=None if told is None else told.field,
        sequence=None if told is None else told.sequence,
        next_command=next_command(known.certainty, known.key, path or "", works=known.works, owner=known.owner),
    )


def scan_info(of: Scan, now: float, *, last: bool) -> LeakScanInfo:
    """Show a reported scan; only the last one of its source can be overdue."""
    return LeakScanInfo(
        id=of.id,
        source=of.source,
        kind=of.kind,
        principal=of.principal,
        started_at=rfc3339(of.started_at),
        reported_at=rfc3339(of.reported_at),
        next_due_at=shown(of.next_due_at),
        overdue=last and of.next_due_at is not None and of.next_due_at < now,
        summary=of.summary,
    )


def policy_info(of: Policy) -> LeakPolicyInfo:
    """Show a policy."""
    return LeakPolicyInfo(
        id=of.id,
        name=of.name,
        position=of.position,
        action=of.action,
        applies=of.applies,
        overlap_seconds=of.overlap_seconds,
        after_seconds=of.after_seconds,
        author=of.author,
        created_at=rfc3339(of.created_at),
        created_by=of.created_by,
        updated_at=rfc3339(of.updated_at),
        revision=of.revision,
    )


def visible_path(op: Operation, path: str) -> str | None:
    """Return the path of a secret for who may list it."""
    return path if path and op.allows(Action.SECRET_LIST, Path(path).resource) else None


def _place(of: SeenPlace) -> FindingPlace:
    return FindingPlace(
        source=of.source,
        path=of.place.path,
        line=of.place.line,
        commit=of.place.commit,
        members=of.place.members,
        encodings=of.place.encodings,
        contexts=of.place.contexts,
        first_seen_at=rfc3339(of.first_seen_at),
        last_seen_at=rfc3339(of.last_seen_at),
    )
