"""Roles: what is granted to a role, its members may do.

Assigning hands out everything the role holds, so the assigner has to hold all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access import rules, store
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.model import Role, principal_resource, role_resource
from keyturn.access.paging import page
from keyturn.access.principals import knowable
from keyturn.access.spread import spread_of
from keyturn.errors import ForbiddenError, duplicate, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.access import AssignRole, CreateRole, MemberInfo, RoleDetail, RoleEffect, RoleInfo, RolePage
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from typing import Any

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation


class RoleService:
    """Roles of the caller's workspace."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def create(
        self, credentials: Credentials, request: CreateRole, *, idempotency: str | None = None
    ) -> RoleDetail:
        """Create a role without grants or members; raises ConflictError when the name is taken."""
        attempt = Attempt.of(credentials, Action.ROLE_CREATE, idempotency, request)

        def work(op: Operation) -> RoleDetail:
            op.authorise(Action.ROLE_CREATE, role_resource(request.name))
            replay = Replay(RoleDetail, lambda made: made.name, lambda name: _detail(op, _existing(op, name)))
            return idempotent(op, attempt, replay, lambda: _create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def read(self, credentials: Credentials, name: str) -> RoleDetail:
        """Show a role with its members."""

        def work(op: Operation) -> RoleDetail:
            return _detail(op, authorised(op, Action.ROLE_READ, name))

        return await self._door.read(credentials, work)

    async def list(self, credentials: Credentials, *, cursor: str | None = None, limit: int = 50) -> RolePage:
        """List the roles that the caller may read."""

        def work(op: Operation) -> RolePage:
            found, following = page(
                op,
                lambda after, count: store.roles_after(op.connection, op.workspace, after, count),
                lambda role: op.allows(Action.ROLE_READ, role_resource(role.name)),
                cursor,
                limit,
                reading=Action.ROLE_READ,
            )
            return RolePage(items=tuple(RoleInfo(**_fields(one)) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def assign(self, credentials: Credentials, name: str, request: AssignRole) -> RoleDetail:
        """Make a principal a member; doing it again changes nothing.

        Raises ForbiddenError when the role holds something that the caller does not.
        """

        def work(op: Operation) -> RoleDetail:
            found = authorised(op, Action.ROLE_ASSIGN, name)
            principal = knowable(op, request.principal)
            _require_held(op, found)
            if store.is_member(op.connection, found.id, principal.id):
                op.unchanged()
                return _detail(op, found)
            store.insert_member(op.connection, found, principal.id, op.caller.principal, op.now)
            _record(op, Action.ROLE_ASSIGN, found, {"principal": principal.id})
            return _detail(op, found)

        return (await self._door.write(credentials, work)).value

    async def unassign(self, credentials: Credentials, name: str, principal_id: str) -> RoleEffect:
        """End a membership; raises NotFoundError for a principal that the caller may not read."""

        def work(op: Operation) -> RoleDetail:
            found = authorised(op, Action.ROLE_UNASSIGN, name)
            principal = knowable(op, principal_id)
            store.delete_member(op.connection, found.id, principal.id)
            _record(op, Action.ROLE_UNASSIGN, found, {"principal": principal.id}, awaited=True)
            return _detail(op, found)

        committed = await self._door.write(credentials, work)
        detail = committed.value
        return RoleEffect(
            id=detail.id,
            name=detail.name,
            description=detail.description,
            created_at=detail.created_at,
            members=detail.members,
            **await spread_of(self._door, committed),
        )


def _create(op: Operation, request: CreateRole) -> RoleDetail:
    if store.role_by_name(op.connection, op.workspace, request.name) is not None:
        raise duplicate("role", request.name)
    made = Role(new_id("rol", op.now), op.workspace, request.name, request.description, op.now)
    store.insert_role(op.connection, made)
    _record(op, Action.ROLE_CREATE, made, {})
    return _detail(op, made)


def _require_held(op: Operation, found: Role) -> None:
    for grant in store.load_subject_grants(op.connection, op.workspace, found.id):
        if not rules.attenuates(op.caller, grant.actions, grant.resource, grant.conditions, op.now):
            message = f"role {found.name!r} holds more than {op.caller.principal} does"
            public = ForbiddenError(message, code="exceeds_own_rights", hint="nobody hands out more than they hold")
            raise op.refusal(Action.ROLE_ASSIGN, role_resource(found.name), public)


def authorised(op: Operation, action: Action, name: str) -> Role:
    """Return a role of the caller's workspace, having authorised the action on it."""
    found = store.role_by_name(op.connection, op.workspace, name)
    resource = None if found is None else role_resource(found.name)
    op.authorise(action, resource, kind="role", name=name, absent=role_resource(name))
    return _existing(op, name) if found is None else found


def _existing(op: Operation, name: str) -> Role:
    found = store.role_by_name(op.connection, op.workspace, name)
    if found is None:
        raise not_found("role", name)
    return found


def _record(op: Operation, action: Action, found: Role, detail: dict[str, Any], *, awaited: bool = False) -> None:
    op.record(
        action,
        role_resource(found.name).name,
        kind=ChangeKind.ROLE,
        entity=found.id,
        detail=detail,
        awaited=awaited,
    )


def _detail(op: Operation, found: Role) -> RoleDetail:
    members = store.role_members(op.connection, op.workspace, found.id)
    return RoleDetail(
        **_fields(found),
        members=tuple(
            MemberInfo(principal=one.principal, assigned_at=rfc3339(one.assigned_at), assigned_by=one.assigned_by)
            for one in members
            if op.allows(Action.PRINCIPAL_READ, principal_resource(one.principal))
        ),
    )


def _fields(found: Role) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "description": found.description,
        "created_at": rfc3339(found.created_at),
    }
