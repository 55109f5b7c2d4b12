"""Workspaces: creating tenants, their caps, and switching one off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from keyturn.access import store
from keyturn.access.founding import found_workspace
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.model import Workspace, instance_workspace_resource, own_workspace_resource
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.access.spread import spread_of
from keyturn.errors import ConflictError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.access import (
    CreateWorkspace,
    UpdateWorkspace,
    WorkspaceCreated,
    WorkspaceEffect,
    WorkspaceInfo,
    WorkspacePage,
)
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from typing import Any

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.access.ports import SystemKeyspace, TokenIssuer
    from keyturn.audit.leaf import Detail


class WorkspaceService:
    """Workspaces of the installation.

    Whoever may read `workspace/<own name>` sees its own.  Everything else needs `~instance/workspace/<name>`, caps
    too: a tenant does not lift its own.
    """

    def __init__(self, door: Door, tokens: TokenIssuer, keyspaces: SystemKeyspace) -> None:
        """Need the door, and what makes a new workspace's first token."""
        self._door = door
        self._tokens = tokens
        self._keyspaces = keyspaces

    async def create(
        self, credentials: Credentials, request: CreateWorkspace, *, idempotency: str | None = None
    ) -> WorkspaceCreated:
        """Create a workspace with an administrator and a token for it, shown this once.

        Raises ConflictError when the name is taken.
        """
        attempt = Attempt.of(credentials, Action.WORKSPACE_CREATE, idempotency, request)

        def work(op: Operation) -> WorkspaceCreated:
            op.authorise(Action.WORKSPACE_CREATE, instance_workspace_resource(request.name))
            replay = Replay(WorkspaceCreated, _entity, lambda entity: _created_again(op, entity))
            return idempotent(op, attempt, replay, lambda: self._create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def read(self, credentials: Credentials, name: str) -> WorkspaceInfo:
        """Show a workspace."""

        def work(op: Operation) -> WorkspaceInfo:
            return WorkspaceInfo(**_fields(_readable(op, name)))

        return await self._door.read(credentials, work)

    async def list(self, credentials: Credentials, *, cursor: str | None = None, limit: int = 50) -> WorkspacePage:
        """List the workspaces that the caller may read."""

        def work(op: Operation) -> WorkspacePage:
            found, following = page(
                op,
                lambda after, count: store.workspaces_after(op.connection, after, count),
                lambda workspace: _may_read(op, workspace),
                cursor,
                limit,
            )
            return WorkspacePage(items=tuple(WorkspaceInfo(**_fields(one)) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateWorkspace, *, if_match: int | None = None
    ) -> WorkspaceEffect:
        """Change caps, default environment or state; lowering a cap revokes nothing, it only refuses new keys.

        Raises ConflictError for disabling the caller's own workspace, PreconditionError for another revision.
        """

        def work(op: Operation) -> Workspace:
            found = store.workspace_by_name(op.connection, name)
            resource = None if found is None else instance_workspace_resource(found.name)
            known = found is not None and _may_read(op, found)
            absent = instance_workspace_resource(name)
            op.authorise(Action.WORKSPACE_UPDATE, resource, kind="workspace", name=name, known=known, absent=absent)
            if found is None:
                raise not_found("workspace", name)
            require_revision(if_match, found.revision)
            return _update(op, found, request)

        committed = await self._door.write(credentials, work)
        return WorkspaceEffect(**_fields(committed.value), **await spread_of(self._door, committed))

    def _create(self, op: Operation, request: CreateWorkspace) -> WorkspaceCreated:
        founded = found_workspace(
            op.transaction,
            self._tokens,
            self._keyspaces,
            name=request.name,
            created_by=op.caller.principal,
            admin=request.admin,
            keys_max=request.keys_max,
            keys_per_owner_max=request.keys_per_owner_max,
        )
        _record(op, Action.WORKSPACE_CREATE, founded.workspace, {"principal": founded.principal.id})
        return WorkspaceCreated(
            **_fields(founded.workspace),
            principal=founded.principal.id,
            token_id=founded.token.token_id,
            token=founded.token.token.reveal(),
        )


def _entity(created: WorkspaceCreated) -> str:
    return f"{created.id} {created.principal}"


def _created_again(op: Operation, entity: str) -> WorkspaceCreated:
    workspace_id, _, principal = entity.partition(" ")
    found = store.workspace_by_id(op.connection, workspace_id)
    if found is None:
        raise not_found("workspace", workspace_id)
    return WorkspaceCreated(**_fields(found), principal=principal, token_id=None, token=None)


def _update(op: Operation, found: Workspace, request: UpdateWorkspace) -> Workspace:
    changed = replace(
        found,
        keys_max=found.keys_max if request.keys_max is UNSET else request.keys_max,
        keys_per_owner_max=(
            found.keys_per_owner_max if request.keys_per_owner_max is UNSET else request.keys_per_owner_max
        ),
        default_environment=(
            found.default_environment if request.default_environment is UNSET else request.default_environment
        ),
        state=found.state if request.state is UNSET else request.state,
    )
    if changed.id == op.workspace and changed.state != "active":
        message = "a workspace cannot disable itself"
        raise ConflictError(message, field="state", hint="do it from the workspace that runs the installation")
    if changed != found:
        changed = replace(changed, revision=found.revision + 1)
        store.update_workspace(op.connection, changed)
    detail: dict[str, Detail] = {
        "state": changed.state,
        "keys_max": changed.keys_max,
        "keys_per_owner_max": changed.keys_per_owner_max,
        "default_environment": changed.default_environment,
    }
    _record(op, Action.WORKSPACE_UPDATE, changed, detail)
    return changed


def _record(op: Operation, action: Action, workspace: Workspace, detail: dict[str, Detail]) -> None:
    """Leave a leaf in the log of the workspace that acted and in that of the workspace it is about."""
    name = instance_workspace_resource(workspace.name).name
    if workspace.id != op.workspace:
        own = own_workspace_resource(workspace.name).name
        op.record(action, own, kind=ChangeKind.AUDIT, entity=workspace.id, detail=detail, workspace=workspace.id)
    op.record(action, name, kind=ChangeKind.WORKSPACE, entity=workspace.id, detail=detail, awaited=True)


def _readable(op: Operation, name: str) -> Workspace:
    found = store.workspace_by_name(op.connection, name)
    if (
        found is not None
        and found.id == op.workspace
        and op.allows(Action.WORKSPACE_READ, own_workspace_resource(found.name))
    ):
        return found
    resource = None if found is None else instance_workspace_resource(found.name)
    op.authorise(Action.WORKSPACE_READ, resource, kind="workspace", name=name, absent=instance_workspace_resource(name))
    if found is None:
        raise not_found("workspace", name)
    return found


def _may_read(op: Operation, workspace: Workspace) -> bool:
    if workspace.id == op.workspace and op.allows(Action.WORKSPACE_READ, own_workspace_resource(workspace.name)):
        return True
    return op.allows(Action.WORKSPACE_READ, instance_workspace_resource(workspace.name))


def _fields(workspace: Workspace) -> dict[str, Any]:
    return {
        "id": workspace.id,
        "name": workspace.name,
        "state": workspace.state,
        "keys_max": workspace.keys_max,
        "keys_per_owner_max": workspace.keys_per_owner_max,
        "default_environment": workspace.default_environment,
        "created_at": rfc3339(workspace.created_at),
        "revision": workspace.revision,
    }
