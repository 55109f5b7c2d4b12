"""SQL of decoys, and of what shows that one was used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.storage.schema import audit_leaf, decoy, last_used
from keyturn.wire.actions import Action
from keyturn.wire.decoys import DecoyKind, DecoyState, DecoyTrip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

READS: Final = (Action.SECRET_READ.value, Action.SECRET_REVEAL.value)
"""What lets the value of a held secret out."""

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_LIVING = decoy.c.state != DecoyState.RETIRED


@dataclass(frozen=True, slots=True)
class Decoy:
    """A key or a secret whose use is an alarm; `key` and `secret` name it, the other is empty."""

    id: str
    workspace: str
    kind: DecoyKind
    key: str
    secret: str
    name: str
    planted_at: str
    state: DecoyState
    created_at: float
    created_by: str
    tripped_count: int
    first_tripped_at: float | None
    last_tripped_at: float | None
    last_trip: DecoyTrip | None
    seen_seq: int
    revision: int

    @property
    def resource(self) -> str:
        """The name that grants match."""
        return f"decoy/{self.name}"


@dataclass(frozen=True, slots=True)
class Use:
    """What shows that a decoy was used since it was looked at last: how often in all, and the last time."""

    count: int
    seq: int
    at: float
    trip: DecoyTrip


def insert_decoy(connection: Connection, made: Decoy) -> None:
    """Store a new decoy; the database refuses a name that was given before."""
    connection.execute(insert(decoy).values(_values(made)))


def update_decoy(connection: Connection, changed: Decoy) -> None:
    """Store a decoy under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(decoy).where(decoy.c.id == changed.id, decoy.c.revision == changed.revision - 1).values(_values(changed))
    )
    if done.rowcount != 1:
        message = f"decoy {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def load_decoy(connection: Connection, workspace: str, name: str) -> Decoy | None:
    """Return a decoy of the workspace by name, retired ones too."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(select(*decoy.c).where(decoy.c.workspace == workspace, decoy.c.name == name)).first()
    return None if row is None else _decoy(row)


def load_by_id(connection: Connection, decoy_id: str) -> Decoy | None:
    """Return a decoy by id, whatever its state."""
    row = connection.execute(select(*decoy.c).where(decoy.c.id == decoy_id)).first()
    return None if row is None else _decoy(row)


def list_decoys(connection: Connection, workspace: str, after: str, limit: int) -> Sequence[Decoy]:
    """Return the decoys of a workspace in order of id, after the id given."""
    rows = connection.execute(
        select(*decoy.c).where(decoy.c.workspace == workspace, decoy.c.id > after).order_by(decoy.c.id).limit(limit)
    ).all()
    return [_decoy(row) for row in rows]


def count_decoys(connection: Connection, workspace: str) -> int:
    """Return how many decoys of a workspace are watched."""
    return connection.execute(
        select(func.count()).select_from(decoy).where(decoy.c.workspace == workspace, _LIVING)
    ).scalar_one()


def is_watched(connection: Connection, workspace: str, key: str) -> bool:
    """Tell whether a key is a decoy that is watched."""
    of_it = (decoy.c.workspace == workspace, decoy.c.key == key, _LIVING)
    return connection.execute(select(decoy.c.id).where(*of_it).limit(1)).first() is not None


def watched(connection: Connection) -> Sequence[Decoy]:
    """Return every decoy of every workspace that is watched; for the watcher."""
    return [_decoy(row) for row in connection.execute(select(*decoy.c).where(_LIVING)).all()]


def verification_counts(connection: Connection, keys: Sequence[str]) -> dict[str, int]:
    """Return how often keys were verified in all; a key that never was is left out."""
    rows = connection.execute(
        select(last_used.c.key, func.sum(last_used.c.count)).where(last_used.c.key.in_(keys)).group_by(last_used.c.key)
    ).all()
    return {row[0]: int(row[1]) for row in rows}


def verifications_since(connection: Connection, one: Decoy, now: float) -> Use | None:
    """Return the verifications of an issued decoy that were counted since it was looked at last.

    They are told apart by their number alone: when they were is said by verifiers, whose batches come late, and may be
    a lie.
    """
    count = verification_counts(connection, [one.key]).get(one.key, 0)
    if count <= one.tripped_count:
        return None
    row = connection.execute(
        select(*last_used.c).where(last_used.c.key == one.key).order_by(last_used.c.at.desc()).limit(1)
    ).one()
    trip = DecoyTrip(
        at="", ip_network=row.ip_network or "", user_agent=row.user_agent or "", endpoint=row.endpoint or ""
    )
    return Use(count=count, seq=one.seen_seq, at=min(row.at, now), trip=trip)


def reads_since(connection: Connection, one: Decoy, resource: str) -> Use | None:
    """Return the reads of a held decoy that are on record since it was looked at last; denied ones count."""
    of_it = (
        audit_leaf.c.workspace == one.workspace,
        audit_leaf.c.resource == resource,
        audit_leaf.c.seq > one.seen_seq,
        audit_leaf.c.action.in_(READS),
    )
    count, seq = connection.execute(select(func.count(), func.max(audit_leaf.c.seq)).where(*of_it)).one()
    if not count:
        return None
    row = connection.execute(select(*audit_leaf.c).where(audit_leaf.c.seq == seq)).one()
    trip = DecoyTrip(at="", actor=row.actor, outcome=row.outcome)
    return Use(count=one.tripped_count + count, seq=seq, at=row.at, trip=trip)


def _values(one: Decoy) -> dict[str, Any]:
    return {
        "id": one.id,
        "workspace": one.workspace,
        "kind": one.kind.value,
        "key": one.key,
        "secret": one.secret,
        "name": one.name,
        "planted_at": one.planted_at,
        "state": one.state.value,
        "created_at": one.created_at,
        "created_by": one.created_by,
        "tripped_count": one.tripped_count,
        "first_tripped_at": one.first_tripped_at,
        "last_tripped_at": one.last_tripped_at,
        "last_trip_json": "" if one.last_trip is None else msgspec.json.encode(one.last_trip).decode(),
        "seen_seq": one.seen_seq,
        "revision": one.revision,
    }


def _decoy(row: Any) -> Decoy:  # noqa: ANN401 -- a row of the table
    return Decoy(
        id=row.id,
        workspace=row.workspace,
        kind=DecoyKind(row.kind),
        key=row.key,
        secret=row.secret,
        name=row.name,
        planted_at=row.planted_at,
        state=DecoyState(row.state),
        created_at=row.created_at,
        created_by=row.created_by,
        tripped_count=row.tripped_count,
        first_tripped_at=row.first_tripped_at,
        last_tripped_at=row.last_tripped_at,
        last_trip=msgspec.json.decode(row.last_trip_json, type=DecoyTrip) if row.last_trip_json else None,
        seen_seq=row.seen_seq,
        revision=row.revision,
    )
