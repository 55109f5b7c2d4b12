"""SQL of plans and owners, and of what is on a plan.  Every query names the workspace; no row is deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, insert, or_, select, true, update

from keyturn.errors import BrokenInvariantError
from keyturn.keys import store
from keyturn.keys.model import REVOKED, Owner, Plan
from keyturn.storage.schema import issued_key, key_owner, keyspace, plan
from keyturn.storage.upsert import insert_on_conflict

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_OWNERS = select(*key_owner.c, plan.c.name.label("plan_name")).outerjoin(plan, plan.c.id == key_owner.c.plan)


# --- plans -------------------------------------------------------------------------------------------------------


def insert_plan(connection: Connection, made: Plan) -> None:
    """Store a new plan; the database refuses a name that the workspace has already."""
    connection.execute(insert(plan).values(_plan_values(made)))


def update_plan(connection: Connection, changed: Plan) -> None:
    """Store a plan that was loaded with `lock`, under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(plan)
        .where(plan.c.id == changed.id, plan.c.workspace == changed.workspace, plan.c.revision == changed.revision - 1)
        .values(_plan_values(changed))
    )
    if done.rowcount != 1:
        message = f"plan {changed.id} changed while it was locked"
        raise BrokenInvariantError(message)


def load_plan(
    connection: Connection, workspace: str, name: str, *, lock: bool = False, share: bool = False
) -> Plan | None:
    """Return a plan of the workspace by name; `lock` keeps others from using it too, `share` from changing it."""
    if _NAME.fullmatch(name) is None:
        return None
    query = select(*plan.c).where(plan.c.workspace == workspace, plan.c.name == name)
    if lock or share:
        query = query.with_for_update(read=not lock)
    row = connection.execute(query).first()
    return None if row is None else _plan(row)


def list_plans(connection: Connection, workspace: str, state: str | None, after: str, limit: int) -> list[Plan]:
    """Return plans in order of id, after the id given."""
    conditions = [] if state is None else [plan.c.state == state]
    rows = connection.execute(
        select(*plan.c)
        .where(plan.c.workspace == workspace, plan.c.id > after, *conditions)
        .order_by(plan.c.id)
        .limit(limit)
    ).all()
    return [_plan(row) for row in rows]


def count_on(connection: Connection, workspace: str, plan_id: str) -> tuple[int, int, int]:
    """Count the keys that are not revoked, the owners and the keyspaces that were put on a plan."""
    counted = (
        select(func.count()).select_from(issued_key).where(*_keys_on(workspace, plan_id)),
        select(func.count())
        .select_from(key_owner)
        .where(key_owner.c.workspace == workspace, key_owner.c.plan == plan_id),
        select(func.count())
        .select_from(keyspace)
        .where(keyspace.c.workspace == workspace, keyspace.c.default_plan == plan_id),
    )
    keys, owners, keyspaces = (connection.execute(one).scalar_one() for one in counted)
    return keys, owners, keyspaces


def keys_on(connection: Connection, workspace: str, plan_id: str) -> list[tuple[str, str]]:
    """Return id and keyspace name of every key on a plan that is not revoked, and lock them."""
    rows = connection.execute(
        select(issued_key.c.id, keyspace.c.name)
        .join(keyspace, keyspace.c.id == issued_key.c.keyspace)
        .where(*_keys_on(workspace, plan_id))
        .order_by(issued_key.c.id)
        .with_for_update(of=issued_key)
    ).all()
    return [(row.id, row.name) for row in rows]


def move_keys(connection: Connection, workspace: str, plan_id: str, to: str, now: float) -> None:
    """Put every key on a plan that is not revoked on another one."""
    connection.execute(
        update(issued_key)
        .where(*_keys_on(workspace, plan_id))
        .values(plan=to, updated_at=now, revision=issued_key.c.revision + 1)
    )


def keyspaces_defaulting_to(connection: Connection, workspace: str, plan_id: str) -> list[str]:
    """Return the names of the keyspaces whose default plan this is."""
    rows = connection.execute(
        select(keyspace.c.name)
        .where(keyspace.c.workspace == workspace, keyspace.c.default_plan == plan_id)
        .order_by(keyspace.c.name)
    )
    return list(rows.scalars())


def bounds_of_plan(connection: Connection, workspace: str, plan_id: str) -> list[Any]:
    """Return the staleness columns of every keyspace that may have a key on the plan."""
    of_owners = exists(
        select(1)
        .select_from(key_owner)
        .join(issued_key, (issued_key.c.workspace == key_owner.c.workspace) & (issued_key.c.owner == key_owner.c.name))
        .where(key_owner.c.workspace == workspace, key_owner.c.plan == plan_id, issued_key.c.keyspace == keyspace.c.id)
    )
    own = exists(select(1).where(issued_key.c.keyspace == keyspace.c.id, issued_key.c.plan == plan_id))
    return _bounds(connection, workspace, or_(keyspace.c.default_plan == plan_id, own, of_owners))


def bounds_of_owner(connection: Connection, workspace: str, name: str) -> list[Any]:
    """Return the staleness columns of every keyspace that the owner has a key in."""
    own = exists(
        select(1).where(
            issued_key.c.workspace == workspace, issued_key.c.owner == name, issued_key.c.keyspace == keyspace.c.id
        )
    )
    return _bounds(connection, workspace, own)


def bounds_of_all(connection: Connection, workspace: str) -> list[Any]:
    """Return the staleness columns of every keyspace of a workspace."""
    return _bounds(connection, workspace, true())


def _bounds(connection: Connection, workspace: str, condition: ColumnElement[bool]) -> list[Any]:
    return list(
        connection.execute(
            select(keyspace.c.stale_after_seconds, keyspace.c.stale_after_was, keyspace.c.stale_after_changed_at).where(
                keyspace.c.workspace == workspace, ~keyspace.c.system, condition
            )
        ).all()
    )


def _keys_on(workspace: str, plan_id: str) -> tuple[ColumnElement[bool], ...]:
    return (issued_key.c.workspace == workspace, issued_key.c.plan == plan_id, issued_key.c.state != REVOKED)


def _plan_values(of: Plan) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "name": of.name,
        "state": of.state,
        "description": of.description,
        "scopes_json": store.to_json(of.scopes),
        "limits_json": store.rules_json(of.limits),
        "quotas_json": store.rules_json(of.quotas),
        "restrictions_json": store.restrictions_json(of.restrictions),
        "shadow_restrictions_json": store.restrictions_json(of.shadow_restrictions),
        "created_at": of.created_at,
        "created_by": of.created_by,
        "updated_at": of.updated_at,
        "revision": of.revision,
    }


def _plan(row: Any) -> Plan:  # noqa: ANN401 -- a row of `plan`
    return Plan(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        state=row.state,
        description=row.description,
        scopes=store.read_texts(row.scopes_json),
        limits=store.read_limits(row.limits_json),
        quotas=store.read_quotas(row.quotas_json),
        restrictions=store.read_restrictions(row.restrictions_json),
        shadow_restrictions=store.read_restrictions(row.shadow_restrictions_json),
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        revision=row.revision,
    )


# --- owners ------------------------------------------------------------------------------------------------------


def insert_owner(connection: Connection, made: Owner) -> bool:
    """Store what is set for an owner for the first time; False when another node has just done so.

    On PostgreSQL this waits for a node that is inserting the same name.
    """
    done = connection.execute(
        insert_on_conflict(connection, key_owner).values(_owner_values(made)).on_conflict_do_nothing()
    )
    return bool(done.rowcount == 1)


def update_owner(connection: Connection, changed: Owner) -> None:
    """Store an owner that was loaded with `lock`, under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(key_owner)
        .where(
            key_owner.c.id == changed.id,
            key_owner.c.workspace == changed.workspace,
            key_owner.c.revision == changed.revision - 1,
        )
        .values(_owner_values(changed))
    )
    if done.rowcount != 1:
        message = f"owner {changed.id} changed while it was locked"
        raise BrokenInvariantError(message)


def load_owner(connection: Connection, workspace: str, name: str, *, lock: bool = False) -> Owner | None:
    """Return what was set for an owner, None when nothing was."""
    query = _OWNERS.where(key_owner.c.workspace == workspace, key_owner.c.name == name)
    if lock:
        query = query.with_for_update(of=key_owner)
    row = connection.execute(query).first()
    return None if row is None else _owner(row)


def list_owners(connection: Connection, workspace: str, plan_id: str | None, after: str, limit: int) -> list[Owner]:
    """Return owners that something was set for, in order of id, after the id given."""
    conditions = [] if plan_id is None else [key_owner.c.plan == plan_id]
    rows = connection.execute(
        _OWNERS.where(key_owner.c.workspace == workspace, key_owner.c.id > after, *conditions)
        .order_by(key_owner.c.id)
        .limit(limit)
    ).all()
    return [_owner(row) for row in rows]


def owners_on(connection: Connection, workspace: str, plan_id: str) -> list[Owner]:
    """Return every owner on a plan, and lock them."""
    rows = connection.execute(
        _OWNERS.where(key_owner.c.workspace == workspace, key_owner.c.plan == plan_id)
        .order_by(key_owner.c.id)
        .with_for_update(of=key_owner)
    ).all()
    return [_owner(row) for row in rows]


def has_keys(connection: Connection, workspace: str, name: str) -> bool:
    """Tell whether the owner ever had an issued key; management tokens are none."""
    found = (
        select(issued_key.c.id)
        .join(keyspace, keyspace.c.id == issued_key.c.keyspace)
        .where(issued_key.c.workspace == workspace, issued_key.c.owner == name, ~keyspace.c.system)
        .limit(1)
    )
    return connection.execute(found).first() is not None


def count_owned(connection: Connection, workspace: str, name: str) -> int:
    """Count the owner's keys that are not revoked; management tokens are none."""
    counted = (
        select(func.count())
        .select_from(issued_key)
        .join(keyspace, keyspace.c.id == issued_key.c.keyspace)
        .where(
            issued_key.c.workspace == workspace,
            issued_key.c.owner == name,
            issued_key.c.state != REVOKED,
            ~keyspace.c.system,
        )
    )
    return connection.execute(counted).scalar_one()


def _owner_values(of: Owner) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "name": of.name,
        "plan": of.plan,
        "limits_json": store.rules_json(of.limits),
        "quotas_json": store.rules_json(of.quotas),
        "created_at": of.created_at,
        "updated_at": of.updated_at,
        "updated_by": of.updated_by,
        "revision": of.revision,
    }


def _owner(row: Any) -> Owner:  # noqa: ANN401 -- a row of `_OWNERS`
    return Owner(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        plan=row.plan,
        plan_name=row.plan_name,
        limits=store.read_limits(row.limits_json),
        quotas=store.read_quotas(row.quotas_json),
        created_at=row.created_at,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
        revision=row.revision,
    )
