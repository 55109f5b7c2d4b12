"""Founding: a new workspace with somebody who may administer it, and the way back in when nobody can.

    found    workspace, system keyspace, principal with `*` on `*`, management token
    rescue   the principal `break-glass` of a workspace, made able to act again, and a new token for it

The workspace `default` of an installation also gets `*` on `~instance/*`: the installation is run from there.
Both run inside a unit of work whose leaf the caller records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from keyturn.access import store
from keyturn.access.caller import Conditions, Grant
from keyturn.access.model import Principal, StoredGrant, Workspace
from keyturn.access.rules import INSTANCE
from keyturn.errors import duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind, Entry

if TYPE_CHECKING:
    from keyturn.access.ports import IssuedToken, SystemKeyspace, TokenIssuer
    from keyturn.storage.transaction import Transaction

DEFAULT_WORKSPACE: Final = "default"
BREAK_GLASS: Final = "break-glass"
EVERYTHING: Final = "*"
EVERYTHING_OF_THE_INSTANCE: Final = f"{INSTANCE}/*"


@dataclass(frozen=True, slots=True)
class Founded:
    """Somebody who may administer a workspace, with a token whose secret is seen this once."""

    workspace: Workspace
    principal: Principal
    token: IssuedToken


def found_workspace(
    transaction: Transaction,
    tokens: TokenIssuer,
    keyspaces: SystemKeyspace,
    *,
    name: str,
    created_by: str,
    admin: str = "admin",
    keys_max: int | None = None,
    keys_per_owner_max: int | None = None,
) -> Founded:
    """Create a workspace; raises ConflictError when the name is taken.

    Appends every change row but the workspace's own, which goes with the leaf that the caller records.
    """
    connection, now = transaction.connection, transaction.now
    if store.workspace_by_name(connection, name) is not None:
        raise duplicate("workspace", name)
    workspace = Workspace(new_id("wsp", now), name, "active", keys_max, keys_per_owner_max, now, 1)
    store.insert_workspace(connection, workspace)
    keyspace_id = keyspaces.create(connection, workspace.id, now)
    transaction.append(Entry(workspace.id, ChangeKind.KEYSPACE, keyspace_id))
    principal = _create_principal(transaction, workspace.id, admin, "user", created_by)
    _ensure_rights(transaction, workspace, principal.id, created_by)
    token = _issue(transaction, tokens, principal, admin, None, created_by)
    return Founded(workspace, principal, token)


def rescue(
    transaction: Transaction,
    tokens: TokenIssuer,
    *,
    name: str,
    expires_at: float | None,
    created_by: str,
) -> Founded:
    """Give the break-glass principal of a workspace its rights back and issue it a token.

    Enables the principal and the workspace if need be.  Raises NotFoundError when there is no such workspace.
    """
    connection = transaction.connection
    workspace = store.workspace_by_name(connection, name)
    if workspace is None:
        raise not_found("workspace", name)
    if workspace.state != "active":
        workspace = replace(workspace, state="active", revision=workspace.revision + 1)
        store.update_workspace(connection, workspace)
        transaction.append(Entry(workspace.id, ChangeKind.WORKSPACE, workspace.id))
    principal = store.principal_by_name(connection, workspace.id, BREAK_GLASS)
    if principal is None:
        principal = _create_principal(transaction, workspace.id, BREAK_GLASS, "user", created_by)
    elif principal.state != "active":
        principal = replace(principal, state="active", revision=principal.revision + 1)
        store.update_principal(connection, principal)
        transaction.append(Entry(workspace.id, ChangeKind.PRINCIPAL, principal.id))
    _ensure_rights(transaction, workspace, principal.id, created_by)
    token = _issue(transaction, tokens, principal, BREAK_GLASS, expires_at, created_by)
    return Founded(workspace, principal, token)


def _create_principal(transaction: Transaction, workspace_id: str, name: str, kind: str, created_by: str) -> Principal:
    now = transaction.now
    principal = Principal(new_id("prn", now), workspace_id, kind, name, "active", {}, now, created_by, 1)
    store.insert_principal(transaction.connection, principal)
    transaction.append(Entry(workspace_id, ChangeKind.PRINCIPAL, principal.id))
    return principal


def _ensure_rights(transaction: Transaction, workspace: Workspace, principal_id: str, created_by: str) -> None:
    """Grant everything, without conditions, unless that is granted already."""
    wanted = [EVERYTHING]
    if workspace.name == DEFAULT_WORKSPACE:
        wanted.append(EVERYTHING_OF_THE_INSTANCE)
    held = {
        grant.resource
        for grant in store.load_subject_grants(transaction.connection, workspace.id, principal_id)
        if grant.actions == (EVERYTHING,) and grant.conditions == Conditions()
    }
    for resource in wanted:
        if resource in held:
            continue
        now = transaction.now
        grant = Grant(new_id("grt", now), principal_id, (EVERYTHING,), resource, Conditions())
        store.insert_grant(
            transaction.connection, workspace.id, StoredGrant(grant, "active", now, created_by, None, None)
        )
        transaction.append(Entry(workspace.id, ChangeKind.GRANT, grant.id))


def _issue(
    transaction: Transaction,
    tokens: TokenIssuer,
    principal: Principal,
    name: str,
    expires_at: float | None,
    created_by: str,
) -> IssuedToken:
    return tokens.issue(
        transaction,
        workspace=principal.workspace,
        principal=principal.id,
        name=name,
        scopes=(),
        resources=(),
        expires_at=expires_at,
        created_by=created_by,
        now=transaction.now,
    )
