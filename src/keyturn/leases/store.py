"""SQL of sources and roles.  Every query of an operation names the workspace; no row is deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.leases.model import Role, Source
from keyturn.storage.schema import credential_role, credential_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring

PURPOSE: Final = "credential-source"
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_ROLE = select(*credential_role.c, credential_source.c.name.label("source_name")).join(
    credential_source, credential_source.c.id == credential_role.c.source
)


def insert_source(connection: Connection, made: Source) -> None:
    """Store a new source; the database refuses a name that a living one of the workspace has."""
    connection.execute(insert(credential_source).values(_source_values(made)))


def update_source(connection: Connection, changed: Source) -> None:
    """Store a source under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(credential_source)
        .where(credential_source.c.id == changed.id, credential_source.c.revision == changed.revision - 1)
        .values(_source_values(changed))
    )
    if done.rowcount != 1:
        message = f"source {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def load_source(connection: Connection, workspace: str, name: str) -> Source | None:
    """Return a living source of the workspace by name."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        select(*credential_source.c).where(
            credential_source.c.workspace == workspace,
            credential_source.c.name == name,
            credential_source.c.deleted_at == 0.0,
        )
    ).first()
    return None if row is None else _source(row)


def load_source_by_id(connection: Connection, source_id: str) -> Source | None:
    """Return a source by id, whatever its state."""
    row = connection.execute(select(*credential_source.c).where(credential_source.c.id == source_id)).first()
    return None if row is None else _source(row)


def list_sources(connection: Connection, workspace: str, after: str, limit: int) -> Sequence[Source]:
    """Return living sources in order of id, after the id given."""
    rows = connection.execute(
        select(*credential_source.c)
        .where(
            credential_source.c.workspace == workspace,
            credential_source.c.deleted_at == 0.0,
            credential_source.c.id > after,
        )
        .order_by(credential_source.c.id)
        .limit(limit)
    ).all()
    return [_source(row) for row in rows]


def every_source(connection: Connection, workspace: str) -> list[Source]:
    """Return all sources of a workspace, whatever their state."""
    rows = connection.execute(select(*credential_source.c).where(credential_source.c.workspace == workspace)).all()
    return [_source(row) for row in rows]


def count_sources(connection: Connection, workspace: str) -> int:
    """Return how many living sources a workspace has."""
    return connection.execute(
        select(func.count())
        .select_from(credential_source)
        .where(credential_source.c.workspace == workspace, credential_source.c.deleted_at == 0.0)
    ).scalar_one()


def seal_secrets(
    connection: Connection, keyring: Keyring, source: Source, secrets: Mapping[str, Any], now: float
) -> None:
    """Keep what is secret of a source's connection, in place of what was kept before."""
    made = keyring.create(
        connection, source.workspace, PURPOSE, source.id, now, value=msgspec.json.encode(dict(secrets))
    )
    keyring.retire(connection, source.workspace, PURPOSE, source.id, made.number - 1)


def open_connection(connection: Connection, keyring: Keyring, source: Source) -> dict[str, Any]:
    """Return the whole connection of a source, secrets included."""
    kept = keyring.current(connection, source.workspace, PURPOSE, source.id)
    secrets: dict[str, Any] = msgspec.json.decode(kept.value, type=dict[str, Any])
    return source.connection | secrets


def insert_role(connection: Connection, made: Role) -> None:
    """Store a new role; the database refuses a name that a living one of the source has."""
    connection.execute(insert(credential_role).values(_role_values(made)))


def update_role(connection: Connection, changed: Role) -> None:
    """Store a role under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(credential_role)
        .where(credential_role.c.id == changed.id, credential_role.c.revision == changed.revision - 1)
        .values(_role_values(changed))
    )
    if done.rowcount != 1:
        message = f"role {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def load_role(connection: Connection, source: Source, name: str) -> Role | None:
    """Return a living role of a source by name."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        _ROLE.where(
            credential_role.c.source == source.id,
            credential_role.c.name == name,
            credential_role.c.deleted_at == 0.0,
        )
    ).first()
    return None if row is None else _role(row)


def load_roles_by_id(connection: Connection, role_ids: Sequence[str]) -> dict[str, Role]:
    """Return roles by id, whatever their state."""
    rows = connection.execute(_ROLE.where(credential_role.c.id.in_(list(role_ids)))).all()
    return {row.id: _role(row) for row in rows}


def list_roles(connection: Connection, source: Source, after: str, limit: int) -> Sequence[Role]:
    """Return living roles of a source in order of id, after the id given."""
    rows = connection.execute(
        _ROLE.where(
            credential_role.c.source == source.id, credential_role.c.deleted_at == 0.0, credential_role.c.id > after
        )
        .order_by(credential_role.c.id)
        .limit(limit)
    ).all()
    return [_role(row) for row in rows]


def _source_values(of: Source) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "name": of.name,
        "kind": of.kind,
        "description": of.description,
        "config_json": msgspec.json.encode({"connection": of.connection, "secrets": of.secrets}).decode(),
        "state": of.state,
        "created_at": of.created_at,
        "created_by": of.created_by,
        "updated_at": of.updated_at,
        "deleted_at": of.deleted_at,
        "revision": of.revision,
    }


def _source(row: Any) -> Source:  # noqa: ANN401 -- a row of `credential_source`
    config = msgspec.json.decode(row.config_json)
    return Source(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        kind=row.kind,
        description=row.description,
        connection=config["connection"],
        secrets=tuple(config["secrets"]),
        state=row.state,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        revision=row.revision,
    )


def _role_values(of: Role) -> dict[str, Any]:
    return {
        "id": of.id,
        "workspace": of.workspace,
        "source": of.source,
        "name": of.name,
        "config_json": msgspec.json.encode(of.config).decode(),
        "ttl_seconds": of.ttl_seconds,
        "max_ttl_seconds": of.max_ttl_seconds,
        "leases_max": of.leases_max,
        "created_at": of.created_at,
        "created_by": of.created_by,
        "updated_at": of.updated_at,
        "deleted_at": of.deleted_at,
        "revision": of.revision,
    }


def _role(row: Any) -> Role:  # noqa: ANN401 -- a row of `credential_role` with the name of its source
    return Role(
        id=row.id,
        workspace=row.workspace,
        source=row.source,
        source_name=row.source_name,
        name=row.name,
        config=msgspec.json.decode(row.config_json),
        ttl_seconds=row.ttl_seconds,
        max_ttl_seconds=row.max_ttl_seconds,
        leases_max=row.leases_max,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        revision=row.revision,
    )
