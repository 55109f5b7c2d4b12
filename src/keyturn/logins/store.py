"""SQL of logins: methods, roles and secret-ids; every query of an operation names the workspace."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.logins.model import ACTIVE, LoginRole, Method, MethodConfig, RoleConfig, SecretId, to_json
from keyturn.storage.schema import login_method, login_role, login_secret, workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row, Table

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_metadata = msgspec.json.Decoder(dict[str, str]).decode
_method_config = msgspec.json.Decoder(MethodConfig).decode
_role_config = msgspec.json.Decoder(RoleConfig).decode


def workspace_by_name(connection: Connection, name: str) -> str | None:
    """Return the id of an active workspace."""
    return connection.execute(
        select(workspace.c.id).where(workspace.c.name == name, workspace.c.state == ACTIVE)
    ).scalar()


# --- methods -----------------------------------------------------------------------------------------------------


def insert_method(connection: Connection, made: Method) -> None:
    """Store a new method."""
    connection.execute(insert(login_method).values(_values(made)))


def update_method(connection: Connection, changed: Method) -> None:
    """Store a method under the next revision, which `changed` already holds."""
    _update(connection, login_method, changed.id, changed.revision, _values(changed))


def method_by_name(connection: Connection, workspace_id: str, name: str) -> Method | None:
    """Return a living method of the workspace."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        select(login_method).where(
            login_method.c.workspace == workspace_id, login_method.c.name == name, login_method.c.deleted_at == 0.0
        )
    ).first()
    return None if row is None else _method(row)


def method_by_id(connection: Connection, method_id: str) -> Method | None:
    """Return a living method by its id."""
    row = connection.execute(
        select(login_method).where(login_method.c.id == method_id, login_method.c.deleted_at == 0.0)
    ).first()
    return None if row is None else _method(row)


def methods_after(connection: Connection, workspace_id: str, after: str, limit: int) -> Sequence[Method]:
    """Return living methods by id, above a cursor."""
    rows = connection.execute(
        select(login_method)
        .where(login_method.c.workspace == workspace_id, login_method.c.deleted_at == 0.0, login_method.c.id > after)
        .order_by(login_method.c.id)
        .limit(limit)
    ).all()
    return [_method(row) for row in rows]


def count_methods(connection: Connection, workspace_id: str) -> int:
    """Count the living methods of a workspace."""
    return connection.execute(
        select(func.count())
        .select_from(login_method)
        .where(login_method.c.workspace == workspace_id, login_method.c.deleted_at == 0.0)
    ).scalar_one()


# --- roles -------------------------------------------------------------------------------------------------------


def insert_role(connection: Connection, made: LoginRole) -> None:
    """Store a new role."""
    connection.execute(insert(login_role).values(_values(made)))


def update_role(connection: Connection, changed: LoginRole) -> None:
    """Store a role under the next revision, which `changed` already holds."""
    _update(connection, login_role, changed.id, changed.revision, _values(changed))


def role_by_name(connection: Connection, method_id: str, name: str) -> LoginRole | None:
    """Return a living role of a method."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        select(login_role).where(
            login_role.c.method == method_id, login_role.c.name == name, login_role.c.deleted_at == 0.0
        )
    ).first()
    return None if row is None else _role(row)


def role_by_role_id(connection: Connection, workspace_id: str, role_id: str) -> LoginRole | None:
    """Return a living role of the workspace by the id that AppRole clients name it by."""
    row = connection.execute(
        select(login_role).where(
            login_role.c.workspace == workspace_id, login_role.c.role_id == role_id, login_role.c.deleted_at == 0.0
        )
    ).first()
    return None if row is None else _role(row)


def role_by_id(connection: Connection, workspace_id: str, row_id: str) -> LoginRole | None:
    """Return a living role by its id."""
    row = connection.execute(
        select(login_role).where(
            login_role.c.workspace == workspace_id, login_role.c.id == row_id, login_role.c.deleted_at == 0.0
        )
    ).first()
    return None if row is None else _role(row)


def roles_after(connection: Connection, method_id: str, after: str, limit: int) -> Sequence[LoginRole]:
    """Return the living roles of a method by id, above a cursor."""
    rows = connection.execute(
        select(login_role)
        .where(login_role.c.method == method_id, login_role.c.deleted_at == 0.0, login_role.c.id > after)
        .order_by(login_role.c.id)
        .limit(limit)
    ).all()
    return [_role(row) for row in rows]


def count_roles(connection: Connection, method_id: str) -> int:
    """Count the living roles of a method."""
    return connection.execute(
        select(func.count())
        .select_from(login_role)
        .where(login_role.c.method == method_id, login_role.c.deleted_at == 0.0)
    ).scalar_one()


def delete_roles(connection: Connection, method_id: str, now: float) -> int:
    """Mark every living role of a method deleted; return how many."""
    done = connection.execute(
        update(login_role)
        .where(login_role.c.method == method_id, login_role.c.deleted_at == 0.0)
        .values(deleted_at=now, updated_at=now, revision=login_role.c.revision + 1)
    )
    return done.rowcount


# --- secret-ids --------------------------------------------------------------------------------------------------


def insert_secret(connection: Connection, made: SecretId) -> None:
    """Store a new secret-id."""
    connection.execute(insert(login_secret).values(_values(made)))


def secret_by_lookup(connection: Connection, workspace_id: str, lookup: str) -> SecretId | None:
    """Return a secret-id by its public part."""
    row = connection.execute(
        select(login_secret).where(login_secret.c.workspace == workspace_id, login_secret.c.lookup == lookup)
    ).first()
    return None if row is None else _secret(row)


def secret_by_id(connection: Connection, role_row: str, secret_id: str) -> SecretId | None:
    """Return a secret-id of a role by its id."""
    row = connection.execute(
        select(login_secret).where(login_secret.c.role == role_row, login_secret.c.id == secret_id)
    ).first()
    return None if row is None else _secret(row)


def secrets_after(connection: Connection, role_row: str, after: str, limit: int) -> Sequence[SecretId]:
    """Return the secret-ids of a role that are not revoked by id, above a cursor."""
    rows = connection.execute(
        select(login_secret)
        .where(login_secret.c.role == role_row, login_secret.c.state == ACTIVE, login_secret.c.id > after)
        .order_by(login_secret.c.id)
        .limit(limit)
    ).all()
    return [_secret(row) for row in rows]


def count_secrets(connection: Connection, role_row: str, now: float) -> int:
    """Count the secret-ids of a role that let somebody in now."""
    return connection.execute(
        select(func.count())
        .select_from(login_secret)
        .where(
            login_secret.c.role == role_row,
            login_secret.c.state == ACTIVE,
            (login_secret.c.expires_at.is_(None)) | (login_secret.c.expires_at > now),
            (login_secret.c.uses_left.is_(None)) | (login_secret.c.uses_left > 0),
        )
    ).scalar_one()


def use_secret(connection: Connection, secret_id: str, now: float) -> bool:
    """Take one use of a secret-id; False when it lets nobody in any more."""
    done = connection.execute(
        update(login_secret)
        .where(
            login_secret.c.id == secret_id,
            login_secret.c.state == ACTIVE,
            (login_secret.c.expires_at.is_(None)) | (login_secret.c.expires_at > now),
            (login_secret.c.uses_left.is_(None)) | (login_secret.c.uses_left > 0),
        )
        .values(uses_left=login_secret.c.uses_left - 1, last_used_at=now)
    )
    return done.rowcount == 1


def set_secret_state(connection: Connection, secret_id: str, state: str) -> None:
    """Store the state of a secret-id."""
    connection.execute(update(login_secret).where(login_secret.c.id == secret_id).values(state=state))


# --- rows --------------------------------------------------------------------------------------------------------


def _update(connection: Connection, table: Table, row_id: str, revision: int, values: dict[str, Any]) -> None:
    done = connection.execute(
        update(table).where(table.c.id == row_id, table.c.revision == revision - 1).values(values)
    )
    if done.rowcount != 1:
        message = f"{table.name} {row_id} changed while it was being changed"
        raise BrokenInvariantError(message)


_JSON: Final = frozenset({"config", "scopes", "resources", "metadata", "cidrs"})


def _values(of: Method | LoginRole | SecretId) -> dict[str, Any]:
    named = {one.name: getattr(of, one.name) for one in fields(of)}
    return {(f"{name}_json" if name in _JSON else name): _value(name, value) for name, value in named.items()}


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 -- a column
    return to_json(value) if name in _JSON else value


def _method(row: Row[Any]) -> Method:
    values = dict(row._mapping)  # noqa: SLF001 -- SQLAlchemy's public name
    return Method(config=_method_config(values.pop("config_json")), **values)


def _role(row: Row[Any]) -> LoginRole:
    values = dict(row._mapping)  # noqa: SLF001 -- as above
    return LoginRole(
        config=_role_config(values.pop("config_json")),
        scopes=_texts(values.pop("scopes_json")),
        resources=_texts(values.pop("resources_json")),
        **values,
    )


def _secret(row: Row[Any]) -> SecretId:
    values = dict(row._mapping)  # noqa: SLF001 -- as above
    return SecretId(metadata=_metadata(values.pop("metadata_json")), cidrs=_texts(values.pop("cidrs_json")), **values)
