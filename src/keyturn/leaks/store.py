"""SQL of findings, their places and history, and of reported scans.  Every query names the workspace."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import bindparam, func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.leaks.model import Event, Finding, Place, Scan, SeenPlace
from keyturn.storage.schema import finding, finding_event, finding_place, leak_scan
from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import ActionState, FindingState, Origin, ScanKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

PLACES_MAX: Final = 1000
"""How many places of one finding are kept."""
EVENTS_SHOWN_MAX: Final = 500
_AT_ONCE: Final = 500

# Built once: a report runs each of them for many rows.
_INSERT = insert(finding)
_UPDATE = (
    update(finding)
    .where(finding.c.id == bindparam("new_id"))
    .values({column.name: bindparam(f"new_{column.name}") for column in finding.c if column.name != "id"})
)
_INSERT_PLACE = insert(finding_place)
_SEEN_AGAIN = (
    update(finding_place)
    .where(finding_place.c.finding == bindparam("of"), finding_place.c.place == bindparam("at"))
    .values(last_seen_at=bindparam("seen"))
)
_INSERT_EVENT = insert(finding_event)


class _StoredPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    path: str
    line: int = 0
    commit: str = ""
    members: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


_read_place = msgspec.json.Decoder(_StoredPlace).decode
_read_detail = msgspec.json.Decoder(dict[str, str]).decode
_read_summary = msgspec.json.Decoder(dict[str, int | str]).decode


# --- findings ----------------------------------------------------------------------------------------------------


def load_finding(connection: Connection, workspace: str, finding_id: str) -> Finding | None:
    """Return a finding of the workspace."""
    row = connection.execute(
        select(*finding.c).where(finding.c.workspace == workspace, finding.c.id == finding_id)
    ).first()
    return None if row is None else finding_of(row)


def by_fingerprint(connection: Connection, workspace: str, fingerprints: Sequence[bytes]) -> dict[bytes, Finding]:
    """Return the findings that have these fingerprints."""
    found: dict[bytes, Finding] = {}
    for start in range(0, len(fingerprints), _AT_ONCE):
        rows = connection.execute(
            select(*finding.c).where(
                finding.c.workspace == workspace, finding.c.fingerprint.in_(fingerprints[start : start + _AT_ONCE])
            )
        ).all()
        found.update({row.fingerprint: finding_of(row) for row in rows})
    return found


def insert_findings(connection: Connection, made: Sequence[Finding]) -> None:
    """Store new findings; the database refuses a fingerprint that one of the workspace has."""
    if made:
        connection.execute(_INSERT, [_values(one) for one in made])


def update_findings(connection: Connection, changed: Sequence[Finding]) -> None:
    """Store findings that were loaded in this transaction, under the next revisions, which they already hold."""
    if changed:
        connection.execute(_UPDATE, [{f"new_{name}": value for name, value in _values(one).items()} for one in changed])


def update_finding(connection: Connection, changed: Finding) -> None:
    """Store a finding under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(finding)
        .where(finding.c.id == changed.id, finding.c.revision == changed.revision - 1)
        .values(_values(changed))
    )
    if done.rowcount != 1:
        message = f"finding {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def narrowed(
    *,
    state: FindingState | None = None,
    certainty: Certainty | None = None,
    key: str | None = None,
    secret: str | None = None,
    owner: str | None = None,
    source: str | None = None,
    keyspace: str | None = None,
) -> list[ColumnElement[bool]]:
    """Turn filters into conditions for `list_findings`; `secret` is an id or a path, None does not filter."""
    equal: tuple[tuple[Any, str | None], ...] = (
        (finding.c.state, state),
        (finding.c.certainty, certainty),
        (finding.c.key, key),
        (finding.c.owner, owner),
        (finding.c.keyspace, keyspace),
    )
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal if value is not None]
    if secret is not None:
        conditions.append((finding.c.secret == secret) | (finding.c.secret_path == secret))
    if source is not None:
        # By the finding, which the places are kept under: no other index leads to a source.
        seen = select(finding_place.c.place).where(
            finding_place.c.finding == finding.c.id, finding_place.c.source == source
        )
        conditions.append(seen.exists())
    return conditions


def list_findings(
    connection: Connection, workspace: str, conditions: Sequence[ColumnElement[bool]], after: str, limit: int
) -> Sequence[Finding]:
    """Return findings that meet all conditions, in order of id, after the id given."""
    rows = connection.execute(
        select(*finding.c)
        .where(finding.c.workspace == workspace, finding.c.id > after, *conditions)
        .order_by(finding.c.id)
        .limit(limit)
    ).all()
    return [finding_of(row) for row in rows]


def due_findings(connection: Connection, now: float, limit: int) -> Sequence[Finding]:
    """Return findings of all workspaces whose action is due, the longest due first."""
    rows = connection.execute(
        select(*finding.c).where(finding.c.due_at <= now).order_by(finding.c.due_at, finding.c.id).limit(limit)
    ).all()
    return [finding_of(row) for row in rows]


def open_counts(connection: Connection) -> dict[str, int]:
    """Return how many findings are open or confirmed, by certainty."""
    rows = connection.execute(
        select(finding.c.certainty, func.count().label("findings"))
        .where(finding.c.state.in_([FindingState.OPEN, FindingState.CONFIRMED]))
        .group_by(finding.c.certainty)
    ).all()
    return {row.certainty: row.findings for row in rows}


def action_backlog(connection: Connection, now: float) -> tuple[float, int]:
    """Return how long ago the longest due action became due, and how many wait for a person."""
    oldest = connection.execute(select(func.min(finding.c.due_at)).where(finding.c.due_at <= now)).scalar()
    waiting = connection.execute(
        select(func.count())
        .select_from(finding)
        .where(
            finding.c.action_state.in_([ActionState.REFUSED, ActionState.FAILED]),
            finding.c.state.in_([FindingState.OPEN, FindingState.CONFIRMED]),
        )
    ).scalar_one()
    return (0.0 if oldest is None else now - oldest), waiting


# --- places ------------------------------------------------------------------------------------------------------


def see_places(
    connection: Connection, source: str, sightings: Sequence[tuple[Finding, Place]], now: float
) -> dict[str, int]:
    """Store that values were seen at places; return how many new places each finding has, by id.

    Of a finding that has as many as are kept, no more are stored.
    """
    seen = {(of.id, _place_digest(source, place)): (of, place) for of, place in sightings}
    known = _known_places(connection, list(seen))
    if known:
        rows = [{"of": of, "at": digest, "seen": now} for of, digest in known]
        connection.execute(_SEEN_AGAIN, rows)
    made, added = [], dict[str, int]()
    for (of_id, digest), (of, place) in seen.items():
        if (of_id, digest) in known or of.places_count + added.get(of_id, 0) >= PLACES_MAX:
            continue
        added[of_id] = added.get(of_id, 0) + 1
        made.append(_place_values(of, digest, source, place, now))
    if made:
        connection.execute(_INSERT_PLACE, made)
    return added


def _known_places(connection: Connection, wanted: Sequence[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
    found: set[tuple[str, bytes]] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        rows = connection.execute(
            select(finding_place.c.finding, finding_place.c.place).where(
                finding_place.c.finding.in_([of for of, _ in part]),
                finding_place.c.place.in_([digest for _, digest in part]),
            )
        ).all()
        found.update((row.finding, row.place) for row in rows)
    return found & set(wanted)


def _place_values(of: Finding, digest: bytes, source: str, place: Place, now: float) -> dict[str, Any]:
    stored = _StoredPlace(place.path, place.line, place.commit, place.members, place.encodings, place.contexts)
    return {
        "finding": of.id,
        "place": digest,
        "workspace": of.workspace,
        "source": source,
        "place_json": msgspec.json.encode(stored).decode(),
        "first_seen_at": now,
        "last_seen_at": now,
    }


def list_places(connection: Connection, of: Finding, limit: int) -> list[SeenPlace]:
    """Return the places of a finding, those seen last first."""
    rows = connection.execute(
        select(*finding_place.c)
        .where(finding_place.c.finding == of.id, finding_place.c.workspace == of.workspace)
        .order_by(finding_place.c.last_seen_at.desc(), finding_place.c.first_seen_at.desc(), finding_place.c.place)
        .limit(limit)
    ).all()
    return [_seen(row) for row in rows]


def _place_digest(source: str, place: Place) -> bytes:
    """Tell places apart; contexts are what is thought of a place, and do not make it another one."""
    where = (source, place.path, place.line, place.commit, place.members)
    return hashlib.blake2b(msgspec.json.encode(where), digest_size=20).digest()


def _seen(row: Any) -> SeenPlace:  # noqa: ANN401 -- a row of `finding_place`
    stored = _read_place(row.place_json)
    place = Place(stored.path, stored.line, stored.commit, stored.members, stored.encodings, stored.contexts)
    return SeenPlace(row.source, place, row.first_seen_at, row.last_seen_at)


# --- history -----------------------------------------------------------------------------------------------------


def insert_events(connection: Connection, happened: Sequence[tuple[Finding, Sequence[Event]]]) -> None:
    """Store what became of findings, in this order."""
    known = _count_events(connection, [of.id for of, events in happened if events])
    rows = [
        {
            # Numbered: what became of it within one millisecond has its order too.
            "id": f"{of.id}.{number:06d}",
            "workspace": of.workspace,
            "finding": of.id,
            "at": one.at,
            "actor": one.actor,
            "event": one.event,
            "detail_json": msgspec.json.encode(one.detail).decode(),
        }
        for of, events in happened
        for number, one in enumerate(events, start=known.get(of.id, 0) + 1)
    ]
    if rows:
        connection.execute(_INSERT_EVENT, rows)


def _count_events(connection: Connection, finding_ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(finding_ids), _AT_ONCE):
        rows = connection.execute(
            select(finding_event.c.finding, func.count().label("events"))
            .where(finding_event.c.finding.in_(finding_ids[start : start + _AT_ONCE]))
            .group_by(finding_event.c.finding)
        ).all()
        found.update({row.finding: row.events for row in rows})
    return found


def list_events(connection: Connection, of: Finding) -> list[Event]:
    """Return what became of a finding, oldest first; of a very long history the end."""
    rows = connection.execute(
        select(*finding_event.c)
        .where(finding_event.c.finding == of.id, finding_event.c.workspace == of.workspace)
        .order_by(finding_event.c.id.desc())
        .limit(EVENTS_SHOWN_MAX)
    ).all()
    return [Event(row.at, row.actor, row.event, _read_detail(row.detail_json)) for row in reversed(rows)]


# --- scans -------------------------------------------------------------------------------------------------------


def insert_scan(connection: Connection, made: Scan) -> None:
    """Store a reported scan."""
    connection.execute(
        insert(leak_scan).values(
            id=made.id,
            workspace=made.workspace,
            source=made.source,
            kind=made.kind,
            principal=made.principal,
            started_at=made.started_at,
            reported_at=made.reported_at,
            next_due_at=made.next_due_at,
            summary_json=msgspec.json.encode(made.summary).decode(),
        )
    )


def list_scans(
    connection: Connection, workspace: str, source: str | None, after: str, limit: int
) -> Sequence[tuple[Scan, bool]]:
    """Return reported scans in order of id, each with whether it is the last one of its source."""
    later = leak_scan.alias()
    newer = select(later.c.id).where(
        later.c.workspace == leak_scan.c.workspace, later.c.source == leak_scan.c.source, later.c.id > leak_scan.c.id
    )
    conditions = [leak_scan.c.workspace == workspace, leak_scan.c.id > after]
    if source is not None:
        conditions.append(leak_scan.c.source == source)
    rows = connection.execute(
        select(*leak_scan.c, (~newer.exists()).label("last")).where(*conditions).order_by(leak_scan.c.id).limit(limit)
    ).all()
    return [(_scan(row), bool(row.last)) for row in rows]


def silent_sources(connection: Connection, now: float) -> int:
    """Return how many sources of all workspaces should have reported again by now."""
    last = select(func.max(leak_scan.c.id).label("id")).group_by(leak_scan.c.workspace, leak_scan.c.source).subquery()
    return connection.execute(
        select(func.count())
        .select_from(leak_scan.join(last, last.c.id == leak_scan.c.id))
        .where(leak_scan.c.next_due_at < now)
    ).scalar_one()


def _scan(row: Any) -> Scan:  # noqa: ANN401 -- a row of `leak_scan`
    return Scan(
        id=row.id,
        workspace=row.workspace,
        source=row.source,
        kind=ScanKind(row.kind),
        principal=row.principal,
        started_at=row.started_at,
        reported_at=row.reported_at,
        next_due_at=row.next_due_at,
        summary=_read_summary(row.summary_json),
    )


def _values(of: Finding) -> dict[str, Any]:
    return {column.name: getattr(of, column.name) for column in finding.c}


def finding_of(row: Any) -> Finding:  # noqa: ANN401 -- a row of `finding`
    """Return a row of `finding` as what it is."""
    given = {column.name: getattr(row, column.name) for column in finding.c}
    return Finding(
        **given
        | {
            "certainty": Certainty(row.certainty),
            "origin": Origin(row.origin),
            "state": FindingState(row.state),
            "action_state": ActionState(row.action_state),
        }
    )
