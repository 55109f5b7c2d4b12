"""SQL of endpoints.  Every query of an operation names the workspace; no row is deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.storage.schema import webhook
from keyturn.webhooks.model import ACTIVE, Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring

SECRET: Final = "webhook-secret"  # noqa: S105 -- the purpose of a sealed key
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_LIVING = webhook.c.deleted_at == 0.0


def insert_endpoint(connection: Connection, made: Endpoint) -> None:
    """Store a new endpoint; the database refuses a name that a living one of the workspace has."""
    connection.execute(insert(webhook).values(_values(made)))


def update_endpoint(connection: Connection, changed: Endpoint) -> None:
    """Store an endpoint under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(webhook)
        .where(webhook.c.id == changed.id, webhook.c.revision == changed.revision - 1)
        .values(_values(changed))
    )
    if done.rowcount != 1:
        message = f"webhook {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def load_endpoint(connection: Connection, workspace: str, name: str) -> Endpoint | None:
    """Return a living endpoint of the workspace by name."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        select(*webhook.c).where(webhook.c.workspace == workspace, webhook.c.name == name, _LIVING)
    ).first()
    return None if row is None else _endpoint(row)


def load_by_id(connection: Connection, endpoint_id: str) -> Endpoint | None:
    """Return an endpoint by id, whatever its state; for the dispatcher."""
    row = connection.execute(select(*webhook.c).where(webhook.c.id == endpoint_id)).first()
    return None if row is None else _endpoint(row)


def list_endpoints(connection: Connection, workspace: str, after: str, limit: int) -> Sequence[Endpoint]:
    """Return living endpoints in order of id, after the id given."""
    rows = connection.execute(
        select(*webhook.c)
        .where(webhook.c.workspace == workspace, _LIVING, webhook.c.id > after)
        .order_by(webhook.c.id)
        .limit(limit)
    ).all()
    return [_endpoint(row) for row in rows]


def count_endpoints(connection: Connection, workspace: str) -> int:
    """Return how many living endpoints a workspace has."""
    return connection.execute(
        select(func.count()).select_from(webhook).where(webhook.c.workspace == workspace, _LIVING)
    ).scalar_one()


def all_living(connection: Connection) -> Sequence[Endpoint]:
    """Return every living endpoint of every workspace; for the dispatcher."""
    return [_endpoint(row) for row in connection.execute(select(*webhook.c).where(_LIVING)).all()]


def set_failing_since(connection: Connection, endpoint_id: str, since: float | None) -> None:
    """Remember when an endpoint began to fail, or that it does no longer; not a change of its revision."""
    is_failing = webhook.c.failing_since.is_not(None)
    changes = is_failing if since is None else ~is_failing
    connection.execute(
        update(webhook)
        .where(webhook.c.id == endpoint_id, changes, webhook.c.state == ACTIVE)
        .values(failing_since=since)
    )


def secrets_of(connection: Connection, keyring: Keyring, endpoint: Endpoint, now: float) -> list[bytes]:
    """Return the secrets that messages are signed with now, the newest first."""
    keys = keyring.all(connection, endpoint.workspace, SECRET, endpoint.id)
    overlapping = endpoint.overlap_until is not None and now < endpoint.overlap_until
    return [key.value for key in keys if key.state == "current" or overlapping]


def _values(of: Endpoint) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "name": of.name,
        "url": of.url,
        "description": of.description,
        "events_json": msgspec.json.encode(of.events).decode(),
        "state": of.state,
        "state_reason": of.state_reason,
        "failing_since": of.failing_since,
        "overlap_until": of.overlap_until,
        "since_seq": of.since_seq,
        "created_at": of.created_at,
        "created_by": of.created_by,
        "updated_at": of.updated_at,
        "deleted_at": of.deleted_at,
        "revision": of.revision,
    }


def _endpoint(row: Any) -> Endpoint:  # noqa: ANN401 -- a row of `webhook`
    return Endpoint(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        url=row.url,
        description=row.description,
        events=tuple(msgspec.json.decode(row.events_json, type=list[str])),
        state=row.state,
        state_reason=row.state_reason,
        failing_since=row.failing_since,
        overlap_until=row.overlap_until,
        since_seq=row.since_seq,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        revision=row.revision,
    )
