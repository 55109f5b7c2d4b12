"""Grants: handing out rights, taking them back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.access import rules, store
from keyturn.access.caller import Conditions, Grant
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.model import StoredGrant, grant_resource
from keyturn.access.moments import epoch_of, shown
from keyturn.access.paging import page
from keyturn.access.principals import knowable
from keyturn.access.roles import authorised as authorised_role
from keyturn.access.spread import spread_of
from keyturn.errors import ForbiddenError, InputError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.access import ConditionsInfo, CreateGrant, GrantEffect, GrantFilter, GrantInfo, GrantPage
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from typing import Any

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail


class GrantService:
    """Grants of the caller's workspace."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def create(
        self, credentials: Credentials, request: CreateGrant, *, idempotency: str | None = None
    ) -> GrantInfo:
        """Grant actions on a resource pattern to a principal or role.

        Raises InputError for patterns that can match nothing, NotFoundError for a subject that the caller may not
        read, ForbiddenError for anything that the caller does not hold itself.
        """
        attempt = Attempt.of(credentials, Action.GRANT_CREATE, idempotency, request)
        conditions = _conditions(request)
        rules.check_grant(request.actions, request.resource, conditions)

        def work(op: Operation) -> GrantInfo:
            grant_id = new_id("grt", op.now)
            op.authorise(Action.GRANT_CREATE, grant_resource(grant_id))
            subject, role = _subject(op, request.principal, request.role)
            made = Grant(grant_id, subject, request.actions, request.resource, conditions)
            replay = Replay(GrantInfo, lambda info: info.id, lambda entity: _info(_existing(op, entity)))
            return idempotent(op, attempt, replay, lambda: _create(op, made, role))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def read(self, credentials: Credentials, grant_id: str) -> GrantInfo:
        """Show a grant, revoked ones too."""

        def work(op: Operation) -> GrantInfo:
            return _info(_authorised(op, Action.GRANT_READ, grant_id))

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        wanted: GrantFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
    ) -> GrantPage:
        """List the grants that the caller may read."""
        given = GrantFilter() if wanted is None else wanted

        def work(op: Operation) -> GrantPage:
            subjects = _subjects(op, given)
            found, following = page(
                op,
                lambda after, count: store.grants_after(
                    op.connection, op.workspace, after, count, subjects=subjects, state=given.state
                ),
                lambda stored: op.allows(Action.GRANT_READ, grant_resource(stored.id)),
                cursor,
                limit,
                reading=Action.GRANT_READ,
            )
            return GrantPage(items=tuple(map(_info, found)), next_cursor=following)

        return await self._door.read(credentials, work)

    async def revoke(self, credentials: Credentials, grant_id: str) -> GrantEffect:
        """Take a grant back, for good.  Revoking again says how far the first time has spread."""

        def work(op: Operation) -> StoredGrant:
            found = _authorised(op, Action.GRANT_REVOKE, grant_id)
            if found.state != "revoked":
                store.revoke_grant(op.connection, op.workspace, grant_id, op.now)
                found = replace(found, state="revoked", revoked_at=op.now)
            _record(op, Action.GRANT_REVOKE, found, awaited=True)
            return found

        committed = await self._door.write(credentials, work)
        return GrantEffect(**_fields(committed.value), **await spread_of(self._door, committed))


def conditions_info(conditions: Conditions) -> ConditionsInfo:
    """Write conditions for a response."""
    return ConditionsInfo(
        environments=conditions.environments,
        cidrs=conditions.cidrs,
        not_before=shown(conditions.not_before),
        not_after=shown(conditions.not_after),
        unknown=conditions.unknown,
    )


def _conditions(request: CreateGrant) -> Conditions:
    given = request.conditions
    return Conditions(
        environments=tuple(dict.fromkeys(given.environments)),
        cidrs=tuple(dict.fromkeys(given.cidrs)),
        not_before=epoch_of(given.not_before, "conditions.not_before"),
        not_after=epoch_of(given.not_after, "conditions.not_after"),
    )


def _subject(op: Operation, principal_id: str | None, role_name: str | None) -> tuple[str, str | None]:
    """Return the id of who is granted something, and the role's name if it is one."""
    if principal_id is not None and role_name is None:
        return knowable(op, principal_id).id, None
    if role_name is not None and principal_id is None:
        role = authorised_role(op, Action.ROLE_READ, role_name)
        return role.id, role.name
    raise InputError("expected either principal or role", field="principal")


def _create(op: Operation, grant: Grant, role: str | None) -> GrantInfo:
    beyond = rules.uncovered(op.caller, grant.actions, grant.resource, grant.conditions, op.now)
    if beyond:
        message = f"{op.caller.principal} does not itself hold {', '.join(beyond)} on {grant.resource}"
        hint = "nobody grants more than they hold; narrow the actions, the resource or the conditions"
        if rules.outlasts(op.caller, grant.conditions.not_after):
            message = "the grant would outlast the token it is made with"
            hint = f"set conditions.not_after to {shown(op.caller.token_expires_at)} or earlier"
        public = ForbiddenError(message, code="exceeds_own_rights", hint=hint)
        raise op.refusal(Action.GRANT_CREATE, grant_resource(grant.id), public)
    made = StoredGrant(grant, "active", op.now, op.caller.principal, None, role)
    store.insert_grant(op.connection, op.workspace, made)
    _record(op, Action.GRANT_CREATE, made)
    return _info(made)


def _subjects(op: Operation, wanted: GrantFilter) -> list[str] | None:
    if wanted.principal is None and wanted.role is None:
        return None
    subjects: list[str] = []
    if wanted.principal is not None:
        subjects.append(wanted.principal)
        subjects.extend(store.roles_of(op.connection, op.workspace, wanted.principal))
    if wanted.role is not None:
        found = store.role_by_name(op.connection, op.workspace, wanted.role)
        subjects.extend([] if found is None else [found.id])
    return subjects


def _authorised(op: Operation, action: Action, grant_id: str) -> StoredGrant:
    found = store.grant_by_id(op.connection, op.workspace, grant_id)
    resource = None if found is None else grant_resource(found.id)
    op.authorise(action, resource, kind="grant", name=grant_id, absent=grant_resource(grant_id))
    return _existing(op, grant_id) if found is None else found


def _existing(op: Operation, grant_id: str) -> StoredGrant:
    found = store.grant_by_id(op.connection, op.workspace, grant_id)
    if found is None:
        raise not_found("grant", grant_id)
    return found


def _record(op: Operation, action: Action, found: StoredGrant, *, awaited: bool = False) -> None:
    given = found.grant.conditions
    conditions: dict[str, Detail] = {
        "environments": list(given.environments),
        "cidrs": list(given.cidrs),
        "not_before": shown(given.not_before),
        "not_after": shown(given.not_after),
    }
    detail: dict[str, Detail] = {
        "subject": found.grant.subject if found.role is None else f"role/{found.role}",
        "actions": list(found.grant.actions),
        "resource": found.grant.resource,
        "conditions": {name: value for name, value in conditions.items() if value},
    }
    op.record(
        action,
        grant_resource(found.id).name,
        kind=ChangeKind.GRANT,
        entity=found.id,
        detail=detail,
        awaited=awaited,
    )


def _info(found: StoredGrant) -> GrantInfo:
    return GrantInfo(**_fields(found))


def _fields(found: StoredGrant) -> dict[str, Any]:
    grant = found.grant
    return {
        "id": grant.id,
        "principal": grant.subject if found.role is None else None,
        "role": found.role,
        "actions": grant.actions,
        "resource": grant.resource,
        "conditions": conditions_info(grant.conditions),
        "state": found.state,
        "created_at": rfc3339(found.created_at),
        "created_by": found.created_by,
        "revoked_at": shown(found.revoked_at),
    }
