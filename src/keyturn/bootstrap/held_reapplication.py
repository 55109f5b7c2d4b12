"""What an audit export says was taken away of held secrets, logins and leases after a backup, and taking it away again.

leaf after the backup's number                       what becomes of it
secret.delete, secret.destroy, secret.remove         done again, unless undeleted again later
system.unwrap                                        the wrap is opened already: nobody opens it a second time
login_token.revoke, auth.logout, secret_id.revoke    done again
login_role.delete, login_method.delete               done again
lease.revoke                                         done again
lease.create                                         its account, which the backup does not know, is dropped
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from keyturn.leases import lease_store
from keyturn.leases import store as source_store
from keyturn.leases.model import Lease, lease_path
from keyturn.logins import store as login_store
from keyturn.logins import token_store
from keyturn.logins.model import REVOKED
from keyturn.storage.schema import login_secret, login_token, secret_version
from keyturn.storage.transaction import ChangeKind
from keyturn.vault import store as secret_store
from keyturn.vault import wrap_store
from keyturn.wire.actions import Action
from keyturn.wire.leases import LeaseState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.vault.model import Secret

REASON: Final = "restored"

_Entity = tuple[ChangeKind, str]


def _delete(
    connection: Connection, workspace: str, _resource: str, detail: dict[str, Any], now: float
) -> _Entity | None:
    found, sequences = _named(connection, workspace, detail)
    if found is None:
        return None
    done = connection.execute(
        update(secret_version)
        .where(
            secret_version.c.secret == found.id,
            secret_version.c.sequence.in_(sequences),
            secret_version.c.deleted_at.is_(None),
            secret_version.c.destroyed_at.is_(None),
        )
        .values(deleted_at=now)
    )
    return _changed(connection, found, now) if done.rowcount else None


def _destroy(
    connection: Connection, workspace: str, _resource: str, detail: dict[str, Any], now: float
) -> _Entity | None:
    found, sequences = _named(connection, workspace, detail)
    if found is None:
        return None
    held = {one.sequence for one in secret_store.holding_values(connection, found)} & set(sequences)
    if not held:
        return None
    secret_store.destroy_versions(connection, found, sorted(held), now)
    return _changed(connection, found, now)


def _remove(
    connection: Connection, workspace: str, _resource: str, detail: dict[str, Any], now: float
) -> _Entity | None:
    found, _ = _named(connection, workspace, detail)
    if found is None:
        return None
    held = [one.sequence for one in secret_store.holding_values(connection, found)]
    secret_store.destroy_versions(connection, found, held, now)
    return _changed(connection, replace(found, deleted_at=secret_store.removal_moment(connection, found, now)), now)


def _unwrap(
    connection: Connection, _workspace: str, resource: str, _detail: dict[str, Any], now: float
) -> _Entity | None:
    wrap_id = resource.rpartition("/")[2]
    return None if wrap_store.claim(connection, wrap_id, now) is None else (ChangeKind.AUDIT, "")


def _end_token(
    connection: Connection, workspace: str, resource: str, _detail: dict[str, Any], now: float
) -> _Entity | None:
    token_id = resource.rpartition("/")[2]
    known = connection.execute(
        select(login_token.c.id).where(login_token.c.workspace == workspace, login_token.c.id == token_id)
    ).first()
    revoked = 0 if known is None else token_store.revoke_tree(connection, token_id, now)
    return (ChangeKind.AUDIT, "") if revoked else None


def _revoke_secret_id(
    connection: Connection, workspace: str, _resource: str, detail: dict[str, Any], _now: float
) -> _Entity | None:
    row = connection.execute(
        select(login_secret.c.id, login_secret.c.role, login_secret.c.state).where(
            login_secret.c.workspace == workspace, login_secret.c.id == str(detail.get("secret_id", ""))
        )
    ).first()
    if row is None or row.state == REVOKED:
        return None
    login_store.set_secret_state(connection, row.id, REVOKED)
    return ChangeKind.LOGIN, row.role


def _delete_role(
    connection: Connection, workspace: str, resource: str, _detail: dict[str, Any], now: float
) -> _Entity | None:
    _, method_name, role_name = resource.split("/", 2)
    method = login_store.method_by_name(connection, workspace, method_name)
    found = None if method is None else login_store.role_by_name(connection, method.id, role_name)
    if found is None:
        return None
    login_store.update_role(connection, replace(found, deleted_at=now, updated_at=now, revision=found.revision + 1))
    return ChangeKind.LOGIN, found.id


def _delete_method(
    connection: Connection, workspace: str, resource: str, _detail: dict[str, Any], now: float
) -> _Entity | None:
    found = login_store.method_by_name(connection, workspace, resource.partition("/")[2])
    if found is None:
        return None
    login_store.delete_roles(connection, found.id, now)
    login_store.update_method(connection, replace(found, deleted_at=now, updated_at=now, revision=found.revision + 1))
    return ChangeKind.LOGIN, found.id


def _revoke_lease(
    connection: Connection, workspace: str, resource: str, _detail: dict[str, Any], now: float
) -> _Entity | None:
    found = lease_store.load_lease(connection, workspace, resource.rpartition("/")[2])
    if found is None or found.state is not LeaseState.ACTIVE:
        return None
    lease_store.begin_end(connection, [found.id], found.state, LeaseState.REVOKING, REASON, now)
    return ChangeKind.LEASE, found.id


def _drop_account(
    connection: Connection, workspace: str, resource: str, detail: dict[str, Any], now: float
) -> _Entity | None:
    """Let the account of a lease that the backup does not know be dropped, as if the lease were being revoked."""
    _, source_name, role_name, lease_id = resource.split("/")
    source = source_store.load_source(connection, workspace, source_name)
    role = None if source is None else source_store.load_role(connection, source, role_name)
    known = lease_store.load_lease(connection, workspace, lease_id)
    account = str(detail.get("account", ""))
    if source is None or role is None or known is not None or not account:
        return None
    lease_store.insert_lease(
        connection,
        Lease(
            id=lease_id,
            workspace=workspace,
            path=lease_path(source_name, role_name, lease_id),
            source=source.id,
            role=role.id,
            account=account,
            state=LeaseState.REVOKING,
            principal="",
            subject=str(detail.get("subject", "")),
            login_role=None,
            ttl_seconds=role.ttl_seconds,
            created_at=now,
            expires_at=now,
            max_expires_at=now,
            due_at=now,
            claimed_until=0.0,
            attempts=0,
            last_error=None,
            revoke_reason=REASON,
            revoked_at=None,
            revision=1,
        ),
    )
    return ChangeKind.LEASE, lease_id


REAPPLIED: Final = {
    Action.SECRET_DELETE: _delete,
    Action.SECRET_DESTROY: _destroy,
    Action.SECRET_REMOVE: _remove,
    Action.SYSTEM_UNWRAP: _unwrap,
    Action.LOGIN_TOKEN_REVOKE: _end_token,
    Action.AUTH_LOGOUT: _end_token,
    Action.SECRET_ID_REVOKE: _revoke_secret_id,
    Action.LOGIN_ROLE_DELETE: _delete_role,
    Action.LOGIN_METHOD_DELETE: _delete_method,
    Action.LEASE_REVOKE: _revoke_lease,
    Action.LEASE_CREATE: _drop_account,
}
"""How each is done again: (connection, workspace, resource, detail, now) -> what changed, None for nothing."""


def _named(connection: Connection, workspace: str, detail: dict[str, Any]) -> tuple[Secret | None, Sequence[int]]:
    sequences = detail.get("sequences")
    chosen = [one for one in sequences if isinstance(one, int)] if isinstance(sequences, list) else []
    return secret_store.load_secret(connection, workspace, str(detail.get("path", ""))), chosen


def _changed(connection: Connection, found: Secret, now: float) -> _Entity:
    secret_store.update_secret(connection, replace(found, updated_at=now, revision=found.revision + 1))
    return ChangeKind.SECRET, found.id
