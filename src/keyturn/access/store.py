"""SQL of access: every query names the workspace it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import bindparam, func, insert, select, update

from keyturn.access import rules
from keyturn.access.caller import Caller, Conditions, Credentials, Grant, TokenOwner
from keyturn.access.model import Member, Principal, Role, StoredGrant, Workspace
from keyturn.storage.schema import access_grant, issued_key, keyspace, principal, role, role_member, workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

_UNKNOWN = Conditions(unknown=True)
_KNOWN_CONDITIONS = frozenset({"environments", "cidrs", "not_before", "not_after"})

# Built once: every management call runs the first two, every issued key the third, and building a statement costs more
# than running it.
_CALLER = (
    select(principal.c.kind, principal.c.name)
    .join(workspace, workspace.c.id == principal.c.workspace)
    .where(
        principal.c.id == bindparam("principal"),
        principal.c.workspace == bindparam("workspace"),
        principal.c.state == "active",
        workspace.c.state == "active",
    )
)
_GRANTS = (
    select(access_grant)
    .where(
        access_grant.c.workspace == bindparam("workspace"),
        access_grant.c.state == "active",
        (access_grant.c.subject == bindparam("principal"))
        | access_grant.c.subject.in_(
            select(role_member.c.role).where(
                role_member.c.principal == bindparam("principal"), role_member.c.workspace == bindparam("workspace")
            )
        ),
    )
    .order_by(access_grant.c.id)
)
_CAPS = select(workspace.c.keys_max, workspace.c.keys_per_owner_max).where(workspace.c.id == bindparam("workspace"))
_LOCKED_CAPS = _CAPS.with_for_update()


# --- the caller ----------------------------------------------------------------------------------


def load_caller(connection: Connection, owner: TokenOwner, credentials: Credentials) -> Caller | None:
    """Return the caller that a proven token stands for.

    None when its principal or workspace is disabled, or the token may not be used from where the request came from.
    """
    if owner.cidrs and not rules.within(owner.cidrs, credentials.ip):
        return None
    row = connection.execute(_CALLER, {"principal": owner.principal, "workspace": owner.workspace}).first()
    if row is None:
        return None
    return Caller(
        workspace=owner.workspace,
        principal=owner.principal,
        kind=row.kind,
        name=row.name,
        token_id=owner.token_id,
        token_scopes=owner.scopes,
        token_resources=owner.resources,
        grants=tuple(load_grants(connection, owner.workspace, owner.principal)),
        ip=credentials.ip,
        request_id=credentials.request_id,
        token_expires_at=owner.expires_at,
        subject=owner.subject,
        login_role=owner.login_role,
    )


def load_grants(connection: Connection, workspace_id: str, principal_id: str) -> list[Grant]:
    """Return the grants not revoked of a principal and of the roles it is a member of."""
    rows = connection.execute(_GRANTS, {"principal": principal_id, "workspace": workspace_id}).all()
    return [_grant(row) for row in rows]


def load_subject_grants(connection: Connection, workspace_id: str, subject: str) -> list[Grant]:
    """Return the grants not revoked that are given to one principal or role itself."""
    rows = connection.execute(
        select(access_grant)
        .where(
            access_grant.c.workspace == workspace_id,
            access_grant.c.state == "active",
            access_grant.c.subject == subject,
        )
        .order_by(access_grant.c.id)
    ).all()
    return [_grant(row) for row in rows]


# --- workspaces ----------------------------------------------------------------------------------


def insert_workspace(connection: Connection, found: Workspace) -> None:
    """Store a new workspace."""
    connection.execute(
        insert(workspace).values(
            id=found.id,
            name=found.name,
            state=found.state,
            keys_max=found.keys_max,
            keys_per_owner_max=found.keys_per_owner_max,
            created_at=found.created_at,
            revision=found.revision,
        )
    )


def workspace_by_name(connection: Connection, name: str) -> Workspace | None:
    """Return the workspace of that name."""
    row = connection.execute(select(workspace).where(workspace.c.name == name)).first()
    return None if row is None else _workspace(row)


def workspace_by_id(connection: Connection, workspace_id: str) -> Workspace | None:
    """Return the workspace of that id."""
    row = connection.execute(select(workspace).where(workspace.c.id == workspace_id)).first()
    return None if row is None else _workspace(row)


def workspaces_after(connection: Connection, after: str, limit: int) -> list[Workspace]:
    """Return workspaces by id, above a cursor."""
    rows = connection.execute(
        select(workspace).where(workspace.c.id > after).order_by(workspace.c.id).limit(limit)
    ).all()
    return [_workspace(row) for row in rows]


def update_workspace(connection: Connection, found: Workspace) -> None:
    """Store a workspace's state, caps and default environment, and its revision."""
    connection.execute(
        update(workspace)
        .where(workspace.c.id == found.id)
        .values(
            state=found.state,
            keys_max=found.keys_max,
            keys_per_owner_max=found.keys_per_owner_max,
            default_environment=found.default_environment,
            revision=found.revision,
        )
    )


def locked_caps(connection: Connection, workspace_id: str) -> tuple[int | None, int | None]:
    """Return the caps of a workspace; with any, the row stays locked so that two nodes cannot both fill the rest."""
    row = connection.execute(_CAPS, {"workspace": workspace_id}).one()
    if row.keys_max is None and row.keys_per_owner_max is None:
        return None, None
    row = connection.execute(_LOCKED_CAPS, {"workspace": workspace_id}).one()
    return row.keys_max, row.keys_per_owner_max


def count_keys(connection: Connection, workspace_id: str, owner: str | None = None) -> int:
    """Count the issued keys that are not revoked; management tokens do not count."""
    counted = (
        select(func.count())
        .select_from(issued_key)
        .join(keyspace, keyspace.c.id == issued_key.c.keyspace)
        .where(
            issued_key.c.workspace == workspace_id,
            issued_key.c.state != "revoked",
            keyspace.c.system.is_(False),
        )
    )
    if owner is not None:
        counted = counted.where(issued_key.c.owner == owner)
    return connection.execute(counted).scalar_one()


# --- principals ----------------------------------------------------------------------------------


def insert_principal(connection: Connection, found: Principal) -> None:
    """Store a new principal."""
    connection.execute(
        insert(principal).values(
            id=found.id,
            workspace=found.workspace,
            kind=found.kind,
            name=found.name,
            state=found.state,
            metadata_json=_json(found.metadata),
            created_at=found.created_at,
            created_by=found.created_by,
            revision=found.revision,
        )
    )


def principal_by_id(connection: Connection, workspace_id: str, principal_id: str) -> Principal | None:
    """Return a principal of the workspace."""
    row = connection.execute(
        select(principal).where(principal.c.workspace == workspace_id, principal.c.id == principal_id)
    ).first()
    return None if row is None else _principal(row)


def principal_by_name(connection: Connection, workspace_id: str, name: str) -> Principal | None:
    """Return the principal of that name in the workspace."""
    row = connection.execute(
        select(principal).where(principal.c.workspace == workspace_id, principal.c.name == name)
    ).first()
    return None if row is None else _principal(row)


def principals_after(
    connection: Connection, workspace_id: str, after: str, limit: int, filters: dict[str, str]
) -> list[Principal]:
    """Return principals by id, above a cursor; `filters` are column values (`kind`, `name`, `state`)."""
    chosen = select(principal).where(principal.c.workspace == workspace_id, principal.c.id > after)
    for column, value in filters.items():
        chosen = chosen.where(principal.c[column] == value)
    return [_principal(row) for row in connection.execute(chosen.order_by(principal.c.id).limit(limit)).all()]


def update_principal(connection: Connection, found: Principal) -> None:
    """Store a principal's name, state and metadata, and its revision."""
    connection.execute(
        update(principal)
        .where(principal.c.workspace == found.workspace, principal.c.id == found.id)
        .values(name=found.name, state=found.state, metadata_json=_json(found.metadata), revision=found.revision)
    )


# --- roles ---------------------------------------------------------------------------------------


def insert_role(connection: Connection, found: Role) -> None:
    """Store a new role."""
    connection.execute(
        insert(role).values(
            id=found.id,
            workspace=found.workspace,
            name=found.name,
            description=found.description,
            created_at=found.created_at,
        )
    )


def role_by_name(connection: Connection, workspace_id: str, name: str) -> Role | None:
    """Return the role of that name in the workspace."""
    row = connection.execute(select(role).where(role.c.workspace == workspace_id, role.c.name == name)).first()
    return None if row is None else _role(row)


def roles_after(connection: Connection, workspace_id: str, after: str, limit: int) -> list[Role]:
    """Return roles by id, above a cursor."""
    rows = connection.execute(
        select(role).where(role.c.workspace == workspace_id, role.c.id > after).order_by(role.c.id).limit(limit)
    ).all()
    return [_role(row) for row in rows]


def role_members(connection: Connection, workspace_id: str, role_id: str) -> list[Member]:
    """Return the members of a role, by principal id."""
    rows = connection.execute(
        select(role_member)
        .where(role_member.c.workspace == workspace_id, role_member.c.role == role_id)
        .order_by(role_member.c.principal)
    ).all()
    return [Member(row.principal, row.assigned_at, row.assigned_by) for row in rows]


def is_member(connection: Connection, role_id: str, principal_id: str) -> bool:
    """Tell whether the principal is a member of the role."""
    row = connection.execute(
        select(role_member.c.role).where(role_member.c.role == role_id, role_member.c.principal == principal_id)
    ).first()
    return row is not None


def roles_of(connection: Connection, workspace_id: str, principal_id: str) -> list[str]:
    """Return the ids of the roles that a principal is a member of."""
    return list(
        connection.execute(
            select(role_member.c.role).where(
                role_member.c.workspace == workspace_id, role_member.c.principal == principal_id
            )
        ).scalars()
    )


def insert_member(connection: Connection, found: Role, principal_id: str, by: str, now: float) -> None:
    """Store a membership."""
    connection.execute(
        insert(role_member).values(
            role=found.id, principal=principal_id, workspace=found.workspace, assigned_at=now, assigned_by=by
        )
    )


def delete_member(connection: Connection, role_id: str, principal_id: str) -> None:
    """Remove a membership; the audit log keeps its history."""
    connection.execute(
        role_member.delete().where(role_member.c.role == role_id, role_member.c.principal == principal_id)
    )


# --- grants --------------------------------------------------------------------------------------


def insert_grant(connection: Connection, workspace_id: str, found: StoredGrant) -> None:
    """Store a new grant."""
    connection.execute(
        insert(access_grant).values(
            id=found.grant.id,
            workspace=workspace_id,
            subject=found.grant.subject,
            actions_json=_json(found.grant.actions),
            resource=found.grant.resource,
            conditions_json=_json(_conditions_document(found.grant.conditions)),
            state=found.state,
            created_at=found.created_at,
            created_by=found.created_by,
            revoked_at=found.revoked_at,
        )
    )


def grant_by_id(connection: Connection, workspace_id: str, grant_id: str) -> StoredGrant | None:
    """Return a grant of the workspace, revoked ones too."""
    row = connection.execute(
        _stored_grants().where(access_grant.c.workspace == workspace_id, access_grant.c.id == grant_id)
    ).first()
    return None if row is None else _stored_grant(row)


def grants_after(
    connection: Connection,
    workspace_id: str,
    after: str,
    limit: int,
    *,
    subjects: Sequence[str] | None,
    state: str | None,
) -> list[StoredGrant]:
    """Return grants by id, above a cursor, of any of the subjects where they are given."""
    chosen = _stored_grants().where(access_grant.c.workspace == workspace_id, access_grant.c.id > after)
    if subjects is not None:
        chosen = chosen.where(access_grant.c.subject.in_(subjects))
    if state is not None:
        chosen = chosen.where(access_grant.c.state == state)
    return [_stored_grant(row) for row in connection.execute(chosen.order_by(access_grant.c.id).limit(limit)).all()]


def revoke_grant(connection: Connection, workspace_id: str, grant_id: str, now: float) -> None:
    """Mark a grant revoked."""
    connection.execute(
        update(access_grant)
        .where(access_grant.c.workspace == workspace_id, access_grant.c.id == grant_id)
        .values(state="revoked", revoked_at=now)
    )


# --- rows ----------------------------------------------------------------------------------------


def _stored_grants() -> Any:  # noqa: ANN401 -- a joined select has no nameable row type
    return select(*access_grant.c, role.c.name.label("role_name")).outerjoin(role, role.c.id == access_grant.c.subject)


def _workspace(row: Row[Any]) -> Workspace:
    return Workspace(
        row.id,
        row.name,
        row.state,
        row.keys_max,
        row.keys_per_owner_max,
        row.created_at,
        row.revision,
        row.default_environment,
    )


def _principal(row: Row[Any]) -> Principal:
    return Principal(
        row.id,
        row.workspace,
        row.kind,
        row.name,
        row.state,
        msgspec.json.decode(row.metadata_json, type=dict[str, str]),
        row.created_at,
        row.created_by,
        row.revision,
    )


def _role(row: Row[Any]) -> Role:
    return Role(row.id, row.workspace, row.name, row.description, row.created_at)


def _grant(row: Row[Any]) -> Grant:
    actions = msgspec.json.decode(row.actions_json, type=tuple[str, ...])
    return Grant(row.id, row.subject, actions, row.resource, _conditions(row.conditions_json))


def _stored_grant(row: Row[Any]) -> StoredGrant:
    return StoredGrant(_grant(row), row.state, row.created_at, row.created_by, row.revoked_at, row.role_name)


def _conditions_document(conditions: Conditions) -> dict[str, object]:
    document = {
        "environments": conditions.environments,
        "cidrs": conditions.cidrs,
        "not_before": conditions.not_before,
        "not_after": conditions.not_after,
    }
    return {name: value for name, value in document.items() if value not in ((), None)}


def _conditions(text: str) -> Conditions:
    """Read stored conditions; what a newer release wrote and this one does not know never holds."""
    try:
        if not _KNOWN_CONDITIONS.issuperset(msgspec.json.decode(text, type=dict[str, Any])):
            return _UNKNOWN
        read = msgspec.json.decode(text, type=Conditions)
    except msgspec.DecodeError:
        return _UNKNOWN
    return read


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
