"""SQL of deliveries and their attempts: the queue and the log are one table."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, func, select, update

from keyturn.storage.schema import webhook, webhook_attempt, webhook_delivery
from keyturn.storage.upsert import insert_on_conflict
from keyturn.webhooks.model import ACTIVE, Attempt, Delivery
from keyturn.wire.webhooks import DeliveryFilter, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection

KEPT_SECONDS = 30 * 86_400.0
_FINISHED = (DeliveryState.DELIVERED.value, DeliveryState.DEAD.value, DeliveryState.CANCELLED.value)
_FIELDS = tuple(field.name for field in fields(Delivery))


def insert_deliveries(connection: Connection, made: Sequence[Delivery]) -> None:
    """Store new deliveries; an event that an endpoint has already is left as it is."""
    if made:
        values = [{name: getattr(one, name) for name in _FIELDS} for one in made]
        connection.execute(insert_on_conflict(connection, webhook_delivery).on_conflict_do_nothing(), values)


def due_endpoints(connection: Connection, now: float, busy: Collection[str], *, claimed: bool = False) -> list[str]:
    """Return the active endpoints for which something is due, without those named.

    With `claimed` what somebody has claimed counts as due.
    """
    due = _due(now)[: 2 if claimed else 3]
    waits = select(webhook_delivery.c.id).where(webhook_delivery.c.webhook == webhook.c.id, *due).exists()
    query = select(webhook.c.id).where(webhook.c.state == ACTIVE, webhook.c.deleted_at == 0.0, waits)
    if busy:
        query = query.where(webhook.c.id.not_in(sorted(busy)))
    return list(connection.execute(query.order_by(webhook.c.id)).scalars())


def claim(connection: Connection, endpoint: str, now: float, seconds: float, limit: int) -> list[Delivery]:
    """Take up to `limit` due deliveries, the longest waiting first, so that nobody else sends them for `seconds`.

    The attempt is counted here: one whose outcome was lost with its process counts too.
    """
    rows = connection.execute(
        select(*webhook_delivery.c)
        .where(webhook_delivery.c.webhook == endpoint, *_due(now))
        .order_by(webhook_delivery.c.next_at, webhook_delivery.c.seq, webhook_delivery.c.id)
        .limit(limit)
    ).all()
    claimed = []
    for row in rows:
        until = now + seconds
        connection.execute(
            update(webhook_delivery)
            .where(webhook_delivery.c.id == row.id)
            .values(attempts=row.attempts + 1, tries=row.tries + 1, claimed_until=until)
        )
        values = {name: getattr(row, name) for name in _FIELDS}
        claimed.append(
            Delivery(**(values | {"attempts": row.attempts + 1, "tries": row.tries + 1, "claimed_until": until}))
        )
    return claimed


def release(connection: Connection, claimed: Delivery) -> None:
    """Give a claim back whose attempt was broken off by a stop."""
    connection.execute(update(webhook_delivery).where(*_still(claimed)).values(claimed_until=0.0))


def release_all(connection: Connection, now: float, but: Sequence[str]) -> None:
    """End the claims of a leader that is gone, without those named."""
    query = update(webhook_delivery).where(
        webhook_delivery.c.state == DeliveryState.PENDING.value, webhook_delivery.c.claimed_until > now
    )
    if but:
        query = query.where(webhook_delivery.c.id.not_in(sorted(but)))
    connection.execute(query.values(claimed_until=0.0))


def record_attempt(connection: Connection, claimed: Delivery, attempt: Attempt) -> None:
    """Keep an attempt in the log."""
    values = {field.name: getattr(attempt, field.name) for field in fields(Attempt)}
    connection.execute(
        insert_on_conflict(connection, webhook_attempt).on_conflict_do_nothing(), values | {"delivery": claimed.id}
    )


def settle(
    connection: Connection, claimed: Delivery, state: DeliveryState, next_at: float, attempt: Attempt, now: float
) -> None:
    """Write down what became of a claimed delivery.

    A success always counts.  Anything else counts only while the claim is the newest: whoever claimed it since knows
    more.
    """
    done = state is not DeliveryState.PENDING
    still = (webhook_delivery.c.id == claimed.id,) if state is DeliveryState.DELIVERED else _still(claimed)
    connection.execute(
        update(webhook_delivery)
        .where(*still)
        .values(
            state=state.value,
            next_at=next_at,
            claimed_until=0.0,
            finished_at=now if done else None,
            last_status=attempt.status,
            last_error=attempt.error,
        )
    )


def load_delivery(connection: Connection, endpoint: str, delivery: str) -> Delivery | None:
    """Return one delivery of an endpoint."""
    row = connection.execute(
        select(*webhook_delivery.c).where(webhook_delivery.c.webhook == endpoint, webhook_delivery.c.id == delivery)
    ).first()
    return None if row is None else _delivery(row)


def attempts_of(connection: Connection, delivery: str) -> list[Attempt]:
    """Return the attempts of a delivery, oldest first."""
    rows = connection.execute(
        select(*webhook_attempt.c).where(webhook_attempt.c.delivery == delivery).order_by(webhook_attempt.c.number)
    ).all()
    return [Attempt(r.number, r.at, r.duration_ms, r.status, r.error, r.excerpt) for r in rows]


def list_deliveries(
    connection: Connection, endpoint: str, wanted: DeliveryFilter, before: str, limit: int
) -> Sequence[Delivery]:
    """Return deliveries of an endpoint, newest first, those older than the id given."""
    conditions = [webhook_delivery.c.webhook == endpoint]
    if before:
        conditions.append(webhook_delivery.c.id < before)
    if wanted.state is not None:
        conditions.append(webhook_delivery.c.state == wanted.state.value)
    if wanted.type is not None:
        conditions.append(webhook_delivery.c.type == wanted.type)
    if wanted.since is not None:
        conditions.append(webhook_delivery.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(webhook_delivery.c.created_at < wanted.until)
    rows = connection.execute(
        select(*webhook_delivery.c).where(*conditions).order_by(webhook_delivery.c.id.desc()).limit(limit)
    ).all()
    return [_delivery(row) for row in rows]


def send_again(connection: Connection, endpoint: str, delivery: str, now: float) -> None:
    """Put a delivery back into the queue, with all its tries before it."""
    connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.webhook == endpoint, webhook_delivery.c.id == delivery)
        .values(**_again(now))
    )


def send_dead_again(connection: Connection, endpoint: str, since: float, now: float, limit: int) -> int:
    """Put dead letters back into the queue, the oldest first; return how many."""
    dead = (
        select(webhook_delivery.c.id)
        .where(
            webhook_delivery.c.webhook == endpoint,
            webhook_delivery.c.state == DeliveryState.DEAD.value,
            webhook_delivery.c.created_at >= since,
        )
        .order_by(webhook_delivery.c.id)
        .limit(limit)
    )
    return connection.execute(
        update(webhook_delivery).where(webhook_delivery.c.id.in_(dead)).values(**_again(now))
    ).rowcount


def has_dead(connection: Connection, endpoint: str, since: float) -> bool:
    """Tell whether there are dead letters since a time."""
    row = connection.execute(
        select(webhook_delivery.c.id)
        .where(
            webhook_delivery.c.webhook == endpoint,
            webhook_delivery.c.state == DeliveryState.DEAD.value,
            webhook_delivery.c.created_at >= since,
        )
        .limit(1)
    ).first()
    return row is not None


def cancel_pending(connection: Connection, endpoint: str, now: float) -> int:
    """End everything that waits for an endpoint; return how many."""
    return connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.webhook == endpoint, webhook_delivery.c.state == DeliveryState.PENDING.value)
        .values(state=DeliveryState.CANCELLED.value, finished_at=now, last_error="the endpoint was deleted")
    ).rowcount


def expire(connection: Connection, now: float, limit: int) -> int:
    """Let what waited too long for a disabled endpoint die; return how many."""
    late = (
        select(webhook_delivery.c.id)
        .where(
            webhook_delivery.c.state == DeliveryState.PENDING.value,
            webhook_delivery.c.created_at < now - KEPT_SECONDS,
            webhook_delivery.c.next_at < now - KEPT_SECONDS,
        )
        .limit(limit)
    )
    return connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.id.in_(late))
        .values(state=DeliveryState.DEAD.value, finished_at=now, last_error="the endpoint was disabled for too long")
    ).rowcount


def drop_old(connection: Connection, now: float, limit: int) -> int:
    """Remove deliveries, with their attempts, that were finished before the retention; return how many."""
    old = list(
        connection.execute(
            select(webhook_delivery.c.id)
            .where(webhook_delivery.c.state.in_(_FINISHED), webhook_delivery.c.finished_at < now - KEPT_SECONDS)
            .limit(limit)
        ).scalars()
    )
    if old:
        connection.execute(delete(webhook_attempt).where(webhook_attempt.c.delivery.in_(old)))
        connection.execute(delete(webhook_delivery).where(webhook_delivery.c.id.in_(old)))
    return len(old)


def backlog(connection: Connection) -> tuple[int, float | None]:
    """Return how many deliveries wait for active endpoints, and when the oldest of them was made."""
    row = connection.execute(
        select(func.count(), func.min(webhook_delivery.c.created_at))
        .select_from(webhook.join(webhook_delivery, webhook_delivery.c.webhook == webhook.c.id))
        .where(
            webhook.c.state == ACTIVE,
            webhook.c.deleted_at == 0.0,
            webhook_delivery.c.state == DeliveryState.PENDING.value,
        )
    ).one()
    return int(row[0]), cast("float | None", row[1])


def _due(now: float) -> tuple[ColumnElement[bool], ...]:
    return (
        webhook_delivery.c.state == DeliveryState.PENDING.value,
        webhook_delivery.c.next_at <= now,
        webhook_delivery.c.claimed_until <= now,
    )


def _still(claimed: Delivery) -> tuple[ColumnElement[bool], ...]:
    return (
        webhook_delivery.c.id == claimed.id,
        webhook_delivery.c.attempts == claimed.attempts,
        webhook_delivery.c.state == DeliveryState.PENDING.value,
    )


def _again(now: float) -> dict[str, Any]:
    return {
        "state": DeliveryState.PENDING.value,
        "tries": 0,
        "next_at": now,
        "claimed_until": 0.0,
        "finished_at": None,
    }


def _delivery(row: Any) -> Delivery:  # noqa: ANN401 -- a row of `webhook_delivery`
    return Delivery(**{name: getattr(row, name) for name in _FIELDS})
