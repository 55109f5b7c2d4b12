"""The node registry: who may admit keys, and up to where each is known to have applied the log.

*Confirm* is one write by a node.  It stores `applied` and the database's time, and returns the head and that
time.  Only confirm extends freshness (see `keyturn.verify.freshness`).  A node registers before it loads its
snapshot, so a revocation either finds it here or is in what it loads.

    live         confirmed_at + bound + margin > database time; a node that is not live can admit nothing
    laggard      live, and of another log or applied < the number asked about
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, delete, func, insert, select, update

from keyturn.storage.change_log import read_head
from keyturn.storage.schema import keyspace, node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

MARGIN_SECONDS = 1.0
"""Allowed difference between a node's boottime rate and the database's clock over one `stale_after`."""

FORGET_SECONDS = 86400.0

SERVER = "server"
"""The kind of a server worker."""

VERIFIER = "verifier"
"""The kind of a verifier in somebody else's process."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a confirm proves; `known` is False when the node is not registered (any more)."""

    known: bool
    log_id: str
    head: int
    database_time: float
    wrote_log_id: str = ""
    """What the confirm stored, and others may have read since."""
    wrote_applied: int = -1


@dataclass(frozen=True, slots=True)
class Node:
    """One registered node."""

    id: str
    kind: str
    label: str
    log_id: str
    applied: int
    registered_at: float
    confirmed_at: float
    workspace: str | None = None
    """Of a verifier; None for a server, which verifies for every workspace."""


def database_time(connection: Connection, now: float) -> float:
    """Return the database's time: its own clock on PostgreSQL, the one server's on SQLite."""
    if connection.dialect.name == "postgresql":
        value = connection.execute(
            select(func.extract("epoch", func.clock_timestamp()).cast(node.c.confirmed_at.type))
        ).scalar_one()
        return float(value)
    return now


def register(
    connection: Connection,
    node_id: str,
    kind: str,
    label: str,
    now: float,
    *,
    workspace: str | None = None,
    principal: str | None = None,
) -> None:
    """Register a node that has applied nothing yet; call before loading a snapshot.

    A verifier belongs to a workspace and to the principal that runs it.

    A SQLite file has exactly one server process (its lock is held), so a new one takes the place of those before it.
    """
    at = database_time(connection, now)
    if connection.dialect.name == "sqlite" and kind == SERVER:
        connection.execute(delete(node).where(node.c.kind == SERVER))
    connection.execute(delete(node).where(node.c.id == node_id))
    connection.execute(
        insert(node).values(
            id=node_id,
            kind=kind,
            label=label,
            log_id="",
            applied=-1,
            registered_at=at,
            confirmed_at=at,
            workspace=workspace,
            principal=principal,
        )
    )


def confirm(
    connection: Connection, node_id: str, log_id: str, applied: int, now: float, *, principal: str | None = None
) -> Confirmation:
    """Store how far a node has applied the log, and return what that proves.

    With `principal`, nobody else's node is known.
    """
    at = database_time(connection, now)
    which = node.c.id == node_id if principal is None else and_(node.c.id == node_id, node.c.principal == principal)
    found = connection.execute(update(node).where(which).values(log_id=log_id, applied=applied, confirmed_at=at))
    head = read_head(connection)
    return Confirmation(found.rowcount == 1, head.log_id, head.seq, at, log_id, applied)


def deregister(connection: Connection, node_id: str, *, principal: str | None = None) -> bool:
    """Forget a node that has stopped answering; with `principal`, nobody else's.  Return whether it was known."""
    which = node.c.id == node_id if principal is None else and_(node.c.id == node_id, node.c.principal == principal)
    return connection.execute(delete(node).where(which)).rowcount == 1


def count_verifiers(connection: Connection, workspace: str) -> int:
    """Return how many verifiers of a workspace are registered."""
    return connection.execute(select(func.count()).where(node.c.workspace == workspace)).scalar_one()


def forget_dead(connection: Connection, now: float) -> int:
    """Forget nodes that have not confirmed for a day; return how many."""
    at = database_time(connection, now)
    return connection.execute(delete(node).where(node.c.confirmed_at < at - FORGET_SECONDS)).rowcount


def all_nodes(connection: Connection) -> list[Node]:
    """Return every registered node, oldest first."""
    rows = connection.execute(select(*node.c).order_by(node.c.registered_at)).all()
    return [
        Node(r.id, r.kind, r.label, r.log_id, r.applied, r.registered_at, r.confirmed_at, r.workspace) for r in rows
    ]


def serving(nodes: Iterable[Node], workspace: str | None) -> list[Node]:
    """Return the nodes that verify for a workspace: the servers, and its own verifiers."""
    return [n for n in nodes if workspace is None or n.workspace is None or n.workspace == workspace]


def longest_staleness(connection: Connection, workspace: str | None, at: float) -> float:
    """Return the longest staleness bound of the keyspaces of a workspace, 0.0 when it has none.

    One that was lowered counts as before until every node must have heard of it.
    """
    was, until = keyspace.c.stale_after_was, keyspace.c.stale_after_changed_at + keyspace.c.stale_after_was
    held = func.coalesce(case((until + 2 * MARGIN_SECONDS > at, was)), 0.0)
    found = connection.execute(
        select(func.max(keyspace.c.stale_after_seconds), func.max(held)).where(
            ~keyspace.c.system, *(() if workspace is None else (keyspace.c.workspace == workspace,))
        )
    ).one()
    return max((float(one) for one in found if one is not None), default=0.0)


def live(nodes: Iterable[Node], at: float, bound_seconds: float) -> list[Node]:
    """Return the nodes that could still admit a key at database time `at` under a staleness bound."""
    return [n for n in nodes if n.confirmed_at + bound_seconds + MARGIN_SECONDS > at]


def laggards(nodes: Iterable[Node], at: float, bound_seconds: float, log_id: str, seq: int) -> list[Node]:
    """Return the live nodes that are not known to have applied `seq` of the log."""
    return [n for n in live(nodes, at, bound_seconds) if n.log_id != log_id or n.applied < seq]
