"""The outbox: every leaf of a change becomes a delivery for each endpoint that wants it, in order, exactly once.

    cursor --leaves numbered above it, in order--> deliveries + cursor moved, in one transaction

Numbers are given in commit order and without gaps, so what is numbered above the cursor has not been seen and nothing
below it is still to come.  An endpoint that is disabled gets its deliveries as dead letters, to be sent again by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from keyturn.kernel.ids import new_id
from keyturn.storage.change_log import read_head
from keyturn.storage.schema import audit_leaf, change, webhook_cursor
from keyturn.webhooks import delivery_store, store
from keyturn.webhooks.model import ACTIVE, Delivery, Endpoint, Event
from keyturn.webhooks.rules import body_of, is_event, wants
from keyturn.wire.webhooks import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

LEAVES_MAX = 200
BEHIND_MAX = 5000
"""How far the cursor may stay behind what was looked at."""
DISABLED_ERROR = "the endpoint was disabled"


def read_cursor(connection: Connection) -> int | None:
    """Return the last number that was fanned out, None before the first time."""
    return connection.execute(select(webhook_cursor.c.seq).where(webhook_cursor.c.id == 1)).scalar()


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the log has found."""

    has_endpoints: bool
    has_news: bool
    """Whether there is anything to write."""
    log_id: str
    up_to: int
    """Up to this number of that log there is nothing to fan out."""


def look(connection: Connection, before: Look | None) -> Look:
    """Look for something to fan out, going on from what an earlier look has found.

    A log that is of no endpoint's interest costs hardly a write, and without endpoints hardly a read.
    """
    endpoints = store.all_living(connection)
    if not endpoints:
        return Look(has_endpoints=False, has_news=False, log_id="", up_to=0)
    cursor, head = read_cursor(connection), read_head(connection)
    # A log that was begun anew may give numbers again.
    seen = before.up_to if before is not None and before.log_id == head.log_id else 0
    start = max(_start(cursor, endpoints), seen)
    events, up_to = _events_after(connection, start, head.seq)
    if any(wants(one, event) for event in events for one in endpoints):
        return Look(has_endpoints=True, has_news=True, log_id=head.log_id, up_to=start)
    behind = up_to - (cursor or 0) > BEHIND_MAX
    return Look(has_endpoints=True, has_news=behind, log_id=head.log_id, up_to=up_to)


def fan_out(connection: Connection, now: float) -> tuple[int, bool]:
    """Make the deliveries of the next leaves and move the cursor; return how many, and whether there is more to do."""
    cursor, head = read_cursor(connection), read_head(connection).seq
    endpoints = store.all_living(connection)
    if not endpoints:
        return 0, False
    events, up_to = _events_after(connection, _start(cursor, endpoints), head)
    made = [delivery_of(one, event, now) for event in events for one in endpoints if wants(one, event)]
    delivery_store.insert_deliveries(connection, made)
    if cursor is None:
        connection.execute(insert(webhook_cursor).values(id=1, seq=up_to))
    else:
        connection.execute(update(webhook_cursor).where(webhook_cursor.c.id == 1).values(seq=up_to))
    return len(made), up_to < head


def catch_up(connection: Connection, now: float) -> None:
    """Fan everything out that has happened so far.

    Called in the unit that changes an endpoint: what happened before is judged by what held then.
    """
    more = True
    while more:
        _, more = fan_out(connection, now)


def delivery_of(endpoint: Endpoint, event: Event, now: float) -> Delivery:
    """Return a new delivery of an event to an endpoint."""
    active = endpoint.state == ACTIVE
    return Delivery(
        id=new_id("msg", event.at),
        workspace=endpoint.workspace,
        webhook=endpoint.id,
        event=event.id,
        seq=event.seq,
        type=event.type,
        body=body_of(event),
        state=DeliveryState.PENDING if active else DeliveryState.DEAD,
        attempts=0,
        tries=0,
        next_at=now,
        claimed_until=0.0,
        created_at=event.at,
        finished_at=None if active else now,
        last_status=None,
        last_error=None if active else DISABLED_ERROR,
    )


def _start(cursor: int | None, endpoints: Sequence[Endpoint]) -> int:
    """Return the number to go on after: before its creation nothing was for an endpoint."""
    return max(cursor or 0, min(one.since_seq for one in endpoints))


def _events_after(connection: Connection, start: int, head: int) -> tuple[list[Event], int]:
    """Return the next events, in order, and the number up to which these are all."""
    if start >= head:
        return [], start
    rows = connection.execute(
        select(audit_leaf.c.seq, audit_leaf.c.id, audit_leaf.c.at, audit_leaf.c.action, audit_leaf.c.outcome)
        .add_columns(audit_leaf.c.workspace, audit_leaf.c.resource, audit_leaf.c.actor, change.c.kind, change.c.entity)
        .select_from(audit_leaf.outerjoin(change, change.c.seq == audit_leaf.c.seq))
        .where(audit_leaf.c.seq > start, audit_leaf.c.seq <= head)
        .order_by(audit_leaf.c.seq)
        .limit(LEAVES_MAX)
    ).all()
    events = [
        Event(
            id=row.id,
            seq=row.seq,
            type=row.action,
            at=row.at,
            workspace=row.workspace,
            resource=row.resource,
            actor=row.actor,
            kind=row.kind if row.entity else None,
            entity=row.entity or None,
        )
        for row in rows
        if is_event(row.action, row.outcome)
    ]
    return events, rows[-1].seq if len(rows) == LEAVES_MAX else head
