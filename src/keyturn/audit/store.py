"""Reading leaves: lists, one leaf, pages of an export; and the one change there is, an erasure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import ColumnElement, Select, func, select, update

from keyturn.audit.pairing import StoredLeaf
from keyturn.audit.tree import last_checkpoint, nearest_checkpoint, read_state
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.match import compile_patterns
from keyturn.kernel.merkle import leaf_hash
from keyturn.storage.schema import audit_checkpoint, audit_leaf, audit_tree
from keyturn.storage.schema import workspace as workspaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

BATCH = 500
SCANNED_MAX = 5000
SKEW_SECONDS = 60.0
"""How far the time of a leaf may be from that of the checkpoint over it, with room to spare."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list is narrowed to; an empty field does not narrow."""

    action: str | None = None
    """A pattern over action names."""
    actor: str | None = None
    resource: str | None = None
    """A pattern over resource names."""
    resource_prefix: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """A leaf as it is stored; `body` is None after an erasure."""

    seq: int
    id: str
    at: float
    action: str
    outcome: str
    actor: str
    resource: str
    body: bytes | None


# Workspace by workspace, so that the index on (workspace, seq) is entered where its tree ends.
_PAST_TREE = (
    audit_leaf.c.workspace == workspaces.c.id,
    audit_leaf.c.seq > func.coalesce(audit_tree.c.built_seq, 0),
)
_TREES = workspaces.outerjoin(audit_tree, audit_tree.c.workspace == workspaces.c.id)
_UNBUILT_COUNT = select(
    func.sum(
        select(func.count())
        .select_from(audit_leaf)
        .where(*_PAST_TREE)
        .correlate(workspaces, audit_tree)
        .scalar_subquery()
    )
).select_from(_TREES)
_UNBUILT_OLDEST = select(
    func.min(
        select(audit_leaf.c.at)
        .where(*_PAST_TREE)
        .order_by(audit_leaf.c.seq)
        .limit(1)
        .correlate(workspaces, audit_tree)
        .scalar_subquery()
    )
).select_from(_TREES)


class _Actor(msgspec.Struct):
    id: str


class _Body(msgspec.Struct):
    action: str
    actor: _Actor
    at: str
    id: str
    outcome: str
    resource: str
    workspace: str


_body_decoder = msgspec.json.Decoder(_Body)


def find_leaves(
    connection: Connection, workspace: str, wanted: Wanted, before: int | None, limit: int
) -> tuple[list[LeafRecord], LeafRecord | None]:
    """Return up to `limit` leaves numbered below `before`, newest first, and the one to go on after.

    Looks at `SCANNED_MAX` leaves at most, so a page may be short and still have a next one.
    """
    query = _narrowed(connection, workspace, wanted)
    found: list[LeafRecord] = []
    last: LeafRecord | None = None
    scanned = 0
    while scanned < SCANNED_MAX:
        page = query if before is None else query.where(audit_leaf.c.seq < before)
        rows = connection.execute(page.order_by(audit_leaf.c.seq.desc()).limit(BATCH)).all()
        for row in rows:
            if _fits(row.action, row.resource, wanted):
                if len(found) == limit:
                    return found, last
                found.append(_record(row))
            before, last = row.seq, _record(row)
        scanned += len(rows)
        if len(rows) < BATCH:
            return found, None
    return found, last


def read_leaf(connection: Connection, workspace: str, leaf_id: str) -> LeafRecord | None:
    """Return one leaf by its id."""
    row = connection.execute(
        select(*audit_leaf.c).where(audit_leaf.c.workspace == workspace, audit_leaf.c.id == leaf_id)
    ).first()
    return None if row is None else _record(row)


def leaves_after(
    connection: Connection, workspace: str, after: int, up_to: int, limit: int, *, action: str | None = None
) -> list[StoredLeaf]:
    """Return the leaves numbered above `after` and at most `up_to`, oldest first, as an export pairs them."""
    query = select(*audit_leaf.c).where(
        audit_leaf.c.workspace == workspace, audit_leaf.c.seq > after, audit_leaf.c.seq <= up_to
    )
    if action is not None:
        query = query.where(audit_leaf.c.action == action)
    rows = connection.execute(query.order_by(audit_leaf.c.seq).limit(limit)).all()
    return [
        StoredLeaf(
            row.seq,
            row.id,
            row.body,
            None if row.body is None else leaf_hash(row.body),
            row.body is not None and not _says(row, row.body),
        )
        for row in rows
    ]


def seq_before(connection: Connection, workspace: str, size: int) -> int:
    """Return the number of the last of the first `size` leaves, 0 for none."""
    base = nearest_checkpoint(connection, workspace, 0, size)
    base_size, base_seq = (0, 0) if base is None else (base.size, base.seq)
    if base_size == size:
        return base_seq
    found = connection.execute(
        select(audit_leaf.c.seq)
        .where(audit_leaf.c.workspace == workspace, audit_leaf.c.seq > base_seq)
        .order_by(audit_leaf.c.seq)
        .offset(size - base_size - 1)
        .limit(1)
    ).scalar()
    return base_seq if found is None else found


def newest_seq(connection: Connection, workspace: str) -> int:
    """Return the number of the newest leaf, 0 for none."""
    return int(
        connection.execute(select(func.max(audit_leaf.c.seq)).where(audit_leaf.c.workspace == workspace)).scalar() or 0
    )


def count_unbuilt(connection: Connection, workspace: str) -> int:
    """Return how many leaves wait to be put into the tree."""
    return connection.execute(
        select(func.count())
        .select_from(audit_leaf)
        .where(audit_leaf.c.workspace == workspace, audit_leaf.c.seq > read_state(connection, workspace).built_seq)
    ).scalar_one()


def unbuilt_leaves(connection: Connection) -> int:
    """Return how many leaves of all workspaces wait to be put into their trees; costs nothing for those that are."""
    return int(connection.execute(_UNBUILT_COUNT).scalar() or 0)


def oldest_unbuilt(connection: Connection) -> float | None:
    """Return the time of the leaf that waits longest to be put into its tree, None when none waits."""
    found = connection.execute(_UNBUILT_OLDEST).scalar()
    return None if found is None else float(found)


def erase_body(connection: Connection, workspace: str, leaf_id: str) -> None:
    """Remove the content of a leaf; its id, time, action, actor, resource and hash stay."""
    connection.execute(
        update(audit_leaf).where(audit_leaf.c.workspace == workspace, audit_leaf.c.id == leaf_id).values(body=None)
    )


def _narrowed(connection: Connection, workspace: str, wanted: Wanted) -> Select[*tuple[Any, ...]]:
    conditions: list[ColumnElement[bool]] = [audit_leaf.c.workspace == workspace]
    if wanted.actor is not None:
        conditions.append(audit_leaf.c.actor == wanted.actor)
    if wanted.outcome is not None:
        conditions.append(audit_leaf.c.outcome == wanted.outcome)
    for column, pattern in ((audit_leaf.c.action, wanted.action), (audit_leaf.c.resource, wanted.resource)):
        if pattern is not None:
            start, star, _ = pattern.partition("*")
            conditions.append(column.startswith(start, autoescape=True) if star else column == pattern)
    if wanted.resource_prefix:
        conditions.append(audit_leaf.c.resource.startswith(wanted.resource_prefix, autoescape=True))
    conditions.extend(_between(connection, workspace, wanted))
    return select(*audit_leaf.c).where(*conditions)


def _between(connection: Connection, workspace: str, wanted: Wanted) -> Sequence[ColumnElement[bool]]:
    """Return conditions on time, and on the number, which has an index, from the checkpoints around that time."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        early = wanted.since - SKEW_SECONDS
        conditions.append(audit_leaf.c.at >= wanted.since)
        before = last_checkpoint(connection, workspace, lambda one: one.signed_at < early)
        if before is not None:
            conditions.append(audit_leaf.c.seq > before.seq)
    if wanted.until is not None:
        late = wanted.until + SKEW_SECONDS
        conditions.append(audit_leaf.c.at < wanted.until)
        within = last_checkpoint(connection, workspace, lambda one: one.signed_at <= late)
        after = connection.execute(
            select(audit_checkpoint.c.seq)
            .where(
                audit_checkpoint.c.workspace == workspace,
                audit_checkpoint.c.size > (0 if within is None else within.size),
            )
            .order_by(audit_checkpoint.c.size)
            .limit(1)
        ).scalar()
        if after is not None:
            conditions.append(audit_leaf.c.seq <= after)
    return conditions


def _fits(action: str, resource: str, wanted: Wanted) -> bool:
    """Decide what SQL only narrowed down: patterns by segment, prefixes by case."""
    return (
        (wanted.action is None or compile_patterns((wanted.action,)).matches(action))
        and (wanted.resource is None or compile_patterns((wanted.resource,)).matches(resource))
        and (not wanted.resource_prefix or resource.startswith(wanted.resource_prefix))
    )


def _says(row: Row[*tuple[Any, ...]], body: bytes) -> bool:
    """Tell whether the columns of a leaf say what its bytes say."""
    try:
        said = _body_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return (said.id, said.workspace, said.action, said.outcome, said.actor.id, said.resource, said.at) == (
        row.id,
        row.workspace,
        row.action,
        row.outcome,
        row.actor,
        row.resource,
        rfc3339(row.at),
    )


def _record(row: Row[*tuple[Any, ...]]) -> LeafRecord:
    return LeafRecord(row.seq, row.id, row.at, row.action, row.outcome, row.actor, row.resource, row.body)
