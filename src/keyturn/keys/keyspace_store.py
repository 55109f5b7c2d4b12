"""SQL of keyspaces.  Every query names the workspace; no row is deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.keys.model import Keyspace
from keyturn.keys.records import PEPPER
from keyturn.keys.store import read_limits, read_quotas, read_restrictions, restrictions_json, rules_json
from keyturn.storage.schema import keyspace, plan, sealed_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_NAME = re.compile(r"~?[a-z0-9_-]{1,64}")

_SELECTED = select(*keyspace.c, plan.c.name.label("default_plan_name")).outerjoin(
    plan, plan.c.id == keyspace.c.default_plan
)
# Built once: every issued key runs one of them.
_BY_NAME = _SELECTED.where(
    keyspace.c.workspace == bindparam("workspace"),
    keyspace.c.name == bindparam("name"),
    keyspace.c.system == bindparam("system"),
)
_BY_NAME_LOCKED = _BY_NAME.with_for_update(of=keyspace)
_BY_NAME_SHARED = _BY_NAME.with_for_update(read=True, of=keyspace)


def insert_keyspace(connection: Connection, made: Keyspace) -> None:
    """Store a new keyspace; the database refuses a name that the workspace has already."""
    connection.execute(insert(keyspace).values(_values(made)))


def update_keyspace(connection: Connection, changed: Keyspace) -> None:
    """Store a keyspace that was loaded with `lock`, under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(keyspace)
        .where(
            keyspace.c.id == changed.id,
            keyspace.c.workspace == changed.workspace,
            keyspace.c.revision == changed.revision - 1,
        )
        .values(_values(changed))
    )
    if done.rowcount != 1:
        message = f"keyspace {changed.id} changed while it was locked"
        raise BrokenInvariantError(message)


def load_keyspace(
    connection: Connection,
    workspace: str,
    name: str,
    *,
    system: bool = False,
    lock: bool = False,
    share: bool = False,
) -> Keyspace | None:
    """Return a keyspace of the workspace by name.

    `lock` keeps others from changing it until this unit ends, and from using it too; `share` from changing it only.
    """
    if _NAME.fullmatch(name) is None:
        return None
    query = _BY_NAME_LOCKED if lock else _BY_NAME_SHARED if share else _BY_NAME
    row = connection.execute(query, {"workspace": workspace, "name": name, "system": system}).first()
    return None if row is None else _keyspace(row)


def list_keyspaces(connection: Connection, workspace: str, after: str, limit: int) -> Sequence[Keyspace]:
    """Return keyspaces in order of id, after the id given; never system ones."""
    rows = connection.execute(
        _SELECTED.where(keyspace.c.workspace == workspace, ~keyspace.c.system, keyspace.c.id > after)
        .order_by(keyspace.c.id)
        .limit(limit)
    ).all()
    return [_keyspace(row) for row in rows]


def peppers(connection: Connection, workspace: str, keyspace_id: str) -> list[tuple[int, str, float]]:
    """Return number, state and creation time of every pepper of a keyspace, newest first, retired ones too."""
    rows = connection.execute(
        select(sealed_key.c.number, sealed_key.c.state, sealed_key.c.created_at)
        .where(sealed_key.c.workspace == workspace, sealed_key.c.purpose == PEPPER, sealed_key.c.path == keyspace_id)
        .order_by(sealed_key.c.number.desc())
    ).all()
    return [(row.number, row.state, row.created_at) for row in rows]


def _values(of: Keyspace) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "name": of.name,
        "prefix": of.prefix,
        "tag": of.tag,
        "environment": of.environment,
        "state": of.state,
        "system": of.system,
        "stale_after_seconds": of.stale_after_seconds,
        "stale_after_was": of.stale_after_was,
        "stale_after_changed_at": of.stale_after_changed_at,
        "restrictions_json": restrictions_json(of.restrictions),
        "accepts_foreign": of.accepts_foreign,
        "description": of.description,
        "created_at": of.created_at,
        "created_by": of.created_by,
        "revision": of.revision,
        "default_plan": of.default_plan,
        "limits_json": rules_json(of.limits),
        "quotas_json": rules_json(of.quotas),
        "shadow_restrictions_json": restrictions_json(of.shadow_restrictions),
    }


def _keyspace(row: Any) -> Keyspace:  # noqa: ANN401 -- a row of `keyspace`
    return Keyspace(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        prefix=row.prefix,
        tag=row.tag,
        environment=row.environment,
        state=row.state,
        system=row.system,
        stale_after_seconds=row.stale_after_seconds,
        stale_after_was=row.stale_after_was,
        stale_after_changed_at=row.stale_after_changed_at,
        restrictions=read_restrictions(row.restrictions_json),
        accepts_foreign=row.accepts_foreign,
        description=row.description,
        created_at=row.created_at,
        created_by=row.created_by,
        revision=row.revision,
        shadow_restrictions=read_restrictions(row.shadow_restrictions_json),
        default_plan=row.default_plan,
        default_plan_name=row.default_plan_name,
        limits=read_limits(row.limits_json),
        quotas=read_quotas(row.quotas_json),
    )
