"""SQL of policies.  Every query names the workspace; no row is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.leaks.model import Policy
from keyturn.storage.schema import leak_policy
from keyturn.wire.leaks import LeakAction, PolicyScope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


class _Config(msgspec.Struct, frozen=True):
    action: LeakAction
    applies: PolicyScope
    overlap_seconds: int
    after_seconds: int
    author: str


_read_config = msgspec.json.Decoder(_Config).decode


def insert_policy(connection: Connection, made: Policy) -> None:
    """Store a new policy; the database refuses a name that a living one of the workspace has."""
    connection.execute(insert(leak_policy).values(_values(made)))


def update_policy(connection: Connection, changed: Policy) -> None:
    """Store a policy under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(leak_policy)
        .where(leak_policy.c.id == changed.id, leak_policy.c.revision == changed.revision - 1)
        .values(_values(changed))
    )
    if done.rowcount != 1:
        message = f"leak policy {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def load_policy(connection: Connection, workspace: str, name: str) -> Policy | None:
    """Return a living policy of the workspace by name."""
    row = connection.execute(
        select(*leak_policy.c).where(
            leak_policy.c.workspace == workspace, leak_policy.c.name == name, leak_policy.c.deleted_at == 0.0
        )
    ).first()
    return None if row is None else _policy(row)


def load_policy_by_id(connection: Connection, workspace: str, policy_id: str) -> Policy | None:
    """Return a living policy of the workspace by id."""
    row = connection.execute(
        select(*leak_policy.c).where(
            leak_policy.c.workspace == workspace, leak_policy.c.id == policy_id, leak_policy.c.deleted_at == 0.0
        )
    ).first()
    return None if row is None else _policy(row)


def list_policies(
    connection: Connection, workspace: str, after: str = "", limit: int | None = None
) -> Sequence[Policy]:
    """Return living policies in order of id, after the id given."""
    rows = connection.execute(
        select(*leak_policy.c)
        .where(leak_policy.c.workspace == workspace, leak_policy.c.deleted_at == 0.0, leak_policy.c.id > after)
        .order_by(leak_policy.c.id)
        .limit(limit)
    ).all()
    return [_policy(row) for row in rows]


def _values(of: Policy) -> dict[str, Any]:
    config = _Config(of.action, of.applies, of.overlap_seconds, of.after_seconds, of.author)
    return {
        "id": of.id,
        "workspace": of.workspace,
        "name": of.name,
        "position": of.position,
        "config_json": msgspec.json.encode(config).decode(),
        "created_at": of.created_at,
        "created_by": of.created_by,
        "updated_at": of.updated_at,
        "deleted_at": of.deleted_at,
        "revision": of.revision,
    }


def _policy(row: Any) -> Policy:  # noqa: ANN401 -- a row of `leak_policy`
    config = _read_config(row.config_json)
    return Policy(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        position=row.position,
        action=config.action,
        applies=config.applies,
        overlap_seconds=config.overlap_seconds,
        after_seconds=config.after_seconds,
        author=config.author,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        revision=row.revision,
    )
