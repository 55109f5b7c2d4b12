"""The change log: numbering in the last step, reading behind a cursor, retention.

    change_head   id=1 | log_id | seq | awaited
    change        seq | workspace | kind | entity | at

`append` must be the last thing a transaction does before COMMIT: from there on it holds the head row's
lock, so numbers are given in commit order and without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Double,
    LargeBinary,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from keyturn.errors import BrokenInvariantError, GoneError
from keyturn.kernel.ids import new_id
from keyturn.storage.driver import sqlite_driver
from keyturn.storage.schema import change, change_head

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.storage.transaction import Entry

RETENTION_SECONDS = 7 * 86400
READ_MAX = 5000


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log stands: its identity, its last number, and the highest number somebody waits for."""

    log_id: str
    seq: int
    awaited: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change row: news that an entity has a new current state."""

    seq: int
    workspace: str
    kind: str
    entity: str


def start_log(connection: Connection, now: float) -> Head:
    """Begin a log of a new random identity; every follower must reload.  Keeps the number running upward."""
    log_id = new_id("log", now)
    row = connection.execute(select(change_head.c.seq).where(change_head.c.id == 1)).first()
    if row is None:
        connection.execute(insert(change_head).values(id=1, log_id=log_id, seq=0, awaited=0))
        return Head(log_id, 0, 0)
    connection.execute(update(change_head).where(change_head.c.id == 1).values(log_id=log_id, awaited=0))
    return Head(log_id, row.seq, 0)


def restart_log(connection: Connection, log_id: str, now: float) -> None:
    """Begin a new log in place of `log_id`, which has lost numbers that were given before.

    It happens when a database comes back without its last commits (an old backup, a replica that was behind).
    Does nothing when another node has begun one already.
    """
    if read_head(connection).log_id == log_id:
        start_log(connection, now)


def read_head(connection: Connection) -> Head:
    """Read the head row."""
    row = connection.execute(
        select(change_head.c.log_id, change_head.c.seq, change_head.c.awaited).where(change_head.c.id == 1)
    ).first()
    if row is None:
        raise _headless()
    return Head(row.log_id, row.seq, row.awaited)


def read_changes(connection: Connection, after: int, *, limit: int = READ_MAX) -> list[Change]:
    """Return the changes numbered above `after`, in order, at most `limit`.

    Raises GoneError when rows after the cursor have been dropped by retention: load a snapshot instead.
    """
    rows = connection.execute(
        select(change.c.seq, change.c.workspace, change.c.kind, change.c.entity)
        .where(change.c.seq > after)
        .order_by(change.c.seq)
        .limit(limit)
    ).all()
    found = [Change(row.seq, row.workspace, row.kind, row.entity) for row in rows]
    if found and (found[0].seq != after + 1 or found[-1].seq != after + len(found)):
        raise _gone(after, found[0].seq)
    if not found and read_head(connection).seq > after:
        raise _gone(after, None)
    return found


def _headless() -> BrokenInvariantError:
    return BrokenInvariantError("the change log has no head row", hint="run `keyturn migrate`")


def _gone(after: int, first: int | None) -> GoneError:
    kept = "none after it is" if first is None else f"the next one kept is {first}"
    return GoneError(f"change {after + 1} is no longer kept; {kept}", hint="load a snapshot and follow from its number")


def workspace_of(connection: Connection, seq: int) -> str | None:
    """Return the workspace that a change concerns; None when it is not kept."""
    return connection.execute(select(change.c.workspace).where(change.c.seq == seq)).scalar_one_or_none()


def oldest(connection: Connection) -> int | None:
    """Return the lowest number still kept."""
    row = connection.execute(select(change.c.seq).order_by(change.c.seq).limit(1)).first()
    return None if row is None else row.seq


def drop_older(connection: Connection, now: float, *, limit: int | None = None) -> int:
    """Drop change rows past retention, the oldest first and at most `limit`; return how many.

    It goes by number up to the first row that is kept, so that what is left has no gap.  Audit leaves are not touched.
    """
    first_kept = connection.execute(
        select(func.min(change.c.seq)).where(change.c.at >= now - RETENTION_SECONDS)
    ).scalar_one_or_none()
    first = oldest(connection)
    if first is None:
        return 0
    past = delete(change)
    if first_kept is not None:
        past = past.where(change.c.seq < first_kept)
    if limit is not None:
        past = past.where(change.c.seq < first + limit)
    return connection.execute(past).rowcount


_APPEND_POSTGRESQL = text(
    """
    WITH h AS (
        UPDATE change_head
        SET seq = seq + :n, awaited = CASE WHEN :awaited > 0 THEN seq + :awaited ELSE awaited END
        WHERE id = 1 RETURNING log_id, seq, awaited
    ), c AS (
        INSERT INTO change (seq, workspace, kind, entity, at)
        SELECT h.seq - :n + u.place, u.workspace, u.kind, u.entity, :at
        FROM h, unnest(:workspaces, :kinds, :entities) WITH ORDINALITY AS u(workspace, kind, entity, place)
    ), l AS (
        INSERT INTO audit_leaf (seq, id, workspace, at, action, outcome, actor, resource, body)
        SELECT h.seq - :n + u.place, u.id, u.workspace, u.at, u.action, u.outcome, u.actor, u.resource, u.body
        FROM h, unnest(:l_places, :l_ids, :l_workspaces, :l_ats, :l_actions, :l_outcomes, :l_actors, :l_resources,
                       :l_bodies) AS u(place, id, workspace, at, action, outcome, actor, resource, body)
    )
    SELECT log_id, seq, awaited FROM h
    """
).bindparams(
    bindparam("n", type_=BigInteger),
    bindparam("awaited", type_=BigInteger),
    bindparam("at", type_=Double),
    *(bindparam(name, type_=ARRAY(Text)) for name in ("workspaces", "kinds", "entities")),
    bindparam("l_places", type_=ARRAY(BigInteger)),
    bindparam("l_ats", type_=ARRAY(Double)),
    bindparam("l_bodies", type_=ARRAY(LargeBinary)),
    *(
        bindparam(f"l_{name}", type_=ARRAY(Text))
        for name in ("ids", "workspaces", "actions", "outcomes", "actors", "resources")
    ),
)


def _append_postgresql(connection: Connection, entries: Sequence[Entry], now: float, awaited: int) -> Head:
    leaves = [(place, e.workspace, e.leaf) for place, e in enumerate(entries, start=1) if e.leaf is not None]
    row = connection.execute(
        _APPEND_POSTGRESQL,
        {
            "n": len(entries),
            "awaited": awaited,
            "at": now,
            "workspaces": [e.workspace for e in entries],
            "kinds": [str(e.kind) for e in entries],
            "entities": [e.entity for e in entries],
            "l_places": [place for place, _, _ in leaves],
            "l_ids": [leaf.id for _, _, leaf in leaves],
            "l_workspaces": [workspace for _, workspace, _ in leaves],
            "l_ats": [leaf.at for _, _, leaf in leaves],
            "l_actions": [leaf.action for _, _, leaf in leaves],
            "l_outcomes": [leaf.outcome for _, _, leaf in leaves],
            "l_actors": [leaf.actor for _, _, leaf in leaves],
            "l_resources": [leaf.resource for _, _, leaf in leaves],
            "l_bodies": [leaf.body for _, _, leaf in leaves],
        },
    ).one()
    return Head(row.log_id, row.seq, row.awaited)


# In the driver's own words: of many small rows, what is built around a statement costs more than storing them.
_HEAD_SQLITE = """
UPDATE change_head SET seq = seq + ?1, awaited = CASE WHEN ?2 > 0 THEN seq + ?2 ELSE awaited END
WHERE id = 1 RETURNING log_id, seq, awaited
"""
_CHANGE_SQLITE = "INSERT INTO change (seq, workspace, kind, entity, at) VALUES (?, ?, ?, ?, ?)"
_LEAF_SQLITE = """
INSERT INTO audit_leaf (seq, id, workspace, at, action, outcome, actor, resource, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def _append_sqlite(driver: sqlite3.Connection, entries: Sequence[Entry], now: float, awaited: int) -> Head:
    head = driver.execute(_HEAD_SQLITE, (len(entries), awaited)).fetchall()
    if not head:
        raise _headless()
    log_id, seq, reached = head[0]
    first = seq - len(entries) + 1
    driver.executemany(
        _CHANGE_SQLITE, [(at, e.workspace, e.kind.value, e.entity, now) for at, e in enumerate(entries, start=first)]
    )
    leaves = [
        (at, leaf.id, e.workspace, leaf.at, leaf.action, leaf.outcome, leaf.actor, leaf.resource, leaf.body)
        for at, e in enumerate(entries, start=first)
        if (leaf := e.leaf) is not None
    ]
    if leaves:
        driver.executemany(_LEAF_SQLITE, leaves)
    return Head(log_id, seq, reached)


def append(connection: Connection, entries: Sequence[Entry], now: float) -> Head:
    """Number the entries and store them with their leaves.  The last step before COMMIT; see the module.

    Returns the head after them, so entry i (1-based) of n got number `head.seq - n + i`.
    """
    awaited = max((place for place, e in enumerate(entries, start=1) if e.awaited), default=0)
    driver = sqlite_driver(connection)
    if driver is None:
        return _append_postgresql(connection, entries, now, awaited)
    return _append_sqlite(driver, entries, now, awaited)
