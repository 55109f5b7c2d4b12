"""Principals: who acts.  Disabling one refuses all of its tokens from the commit on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from keyturn.access import store
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.model import Principal, principal_resource
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.access.spread import spread_of
from keyturn.errors import duplicate, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.access import (
    CreatePrincipal,
    PrincipalEffect,
    PrincipalFilter,
    PrincipalInfo,
    PrincipalPage,
    UpdatePrincipal,
)
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials, Grant
    from keyturn.access.door import Door, Operation


class PrincipalService:
    """Principals of the caller's workspace."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def create(
        self, credentials: Credentials, request: CreatePrincipal, *, idempotency: str | None = None
    ) -> PrincipalInfo:
        """Create a principal without any rights; raises ConflictError when the name is taken."""
        attempt = Attempt.of(credentials, Action.PRINCIPAL_CREATE, idempotency, request)

        def work(op: Operation) -> PrincipalInfo:
            found = Principal(
                new_id("prn", op.now),
                op.workspace,
                request.kind,
                request.name,
                "active",
                request.metadata,
                op.now,
                op.caller.principal,
                1,
            )
            op.authorise(Action.PRINCIPAL_CREATE, principal_resource(found.id))
            replay = Replay(PrincipalInfo, lambda made: made.id, lambda entity: _info(_existing(op, entity)))
            return idempotent(op, attempt, replay, lambda: _create(op, found))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def read(self, credentials: Credentials, principal_id: str) -> PrincipalInfo:
        """Show a principal."""

        def work(op: Operation) -> PrincipalInfo:
            return _info(authorised(op, Action.PRINCIPAL_READ, principal_id))

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        wanted: PrincipalFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
    ) -> PrincipalPage:
        """List the principals that the caller may read."""
        given = PrincipalFilter() if wanted is None else wanted
        chosen = {"kind": given.kind, "name": given.name, "state": given.state}
        filters = {column: value for column, value in chosen.items() if value is not None}

        def work(op: Operation) -> PrincipalPage:
            found, following = page(
                op,
                lambda after, count: store.principals_after(op.connection, op.workspace, after, count, filters),
                lambda principal: op.allows(Action.PRINCIPAL_READ, principal_resource(principal.id)),
                cursor,
                limit,
                reading=Action.PRINCIPAL_READ,
            )
            return PrincipalPage(items=tuple(map(_info, found)), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, principal_id: str, request: UpdatePrincipal, *, if_match: int | None = None
    ) -> PrincipalInfo:
        """Change name or metadata.

        Raises ConflictError for a name that is taken, PreconditionError for another revision.
        """

        def work(op: Operation) -> PrincipalInfo:
            found = authorised(op, Action.PRINCIPAL_UPDATE, principal_id)
            require_revision(if_match, found.revision)
            changed = replace(
                found,
                name=found.name if request.name is UNSET else request.name,
                metadata=found.metadata if request.metadata is UNSET else request.metadata,
            )
            if changed == found:
                op.unchanged()
                return _info(found)
            if changed.name != found.name:
                _require_free(op, changed.name)
            changed = replace(changed, revision=found.revision + 1)
            store.update_principal(op.connection, changed)
            _record(op, Action.PRINCIPAL_UPDATE, changed)
            return _info(changed)

        return (await self._door.write(credentials, work)).value

    async def disable(self, credentials: Credentials, principal_id: str) -> PrincipalEffect:
        """Refuse every token of a principal; reversible.  Disabling again says how far the first time has spread."""
        return await self._switch(credentials, principal_id, Action.PRINCIPAL_DISABLE, "disabled")

    async def enable(self, credentials: Credentials, principal_id: str) -> PrincipalEffect:
        """Let a disabled principal act again."""
        return await self._switch(credentials, principal_id, Action.PRINCIPAL_ENABLE, "active")

    async def _switch(self, credentials: Credentials, principal_id: str, action: Action, state: str) -> PrincipalEffect:
        def work(op: Operation) -> Principal:
            found = authorised(op, action, principal_id)
            if found.state != state:
                found = replace(found, state=state, revision=found.revision + 1)
                store.update_principal(op.connection, found)
            # Recorded even when nothing changed: the answer is about a commit that nodes can be seen to have applied.
            _record(op, action, found, awaited=True)
            return found

        committed = await self._door.write(credentials, work)
        return PrincipalEffect(**_fields(committed.value), **await spread_of(self._door, committed))


def authorised(op: Operation, action: Action, principal_id: str) -> Principal:
    """Return a principal of the caller's workspace, having authorised the action on it."""
    found = store.principal_by_id(op.connection, op.workspace, principal_id)
    resource = None if found is None else principal_resource(found.id)
    op.authorise(action, resource, kind="principal", name=principal_id, absent=principal_resource(principal_id))
    return _existing(op, principal_id) if found is None else found


def knowable(op: Operation, principal_id: str) -> Principal:
    """Return a principal that an operation on something else names; one that may not be read is not found."""
    return authorised(op, Action.PRINCIPAL_READ, principal_id)


def known_by(op: Operation, reference: str) -> Principal | None:
    """Return the principal of an id or a name, None when there is none that the caller may read."""
    found = store.principal_by_id(op.connection, op.workspace, reference)
    found = found or store.principal_by_name(op.connection, op.workspace, reference)
    return found if found is not None and op.allows(Action.PRINCIPAL_READ, principal_resource(found.id)) else None


def grants_of(op: Operation, principal_id: str) -> list[Grant]:
    """Return the grants of a principal and of its roles, for a rule about what it may."""
    return store.load_grants(op.connection, op.workspace, principal_id)


def active(connection: Connection, workspace_id: str, principal_id: str) -> Principal | None:
    """Return a principal of the workspace, None when it is disabled or there is none."""
    found = store.principal_by_id(connection, workspace_id, principal_id)
    return found if found is not None and found.state == "active" else None


def _create(op: Operation, found: Principal) -> PrincipalInfo:
    _require_free(op, found.name)
    store.insert_principal(op.connection, found)
    _record(op, Action.PRINCIPAL_CREATE, found)
    return _info(found)


def _existing(op: Operation, principal_id: str) -> Principal:
    found = store.principal_by_id(op.connection, op.workspace, principal_id)
    if found is None:
        raise not_found("principal", principal_id)
    return found


def _require_free(op: Operation, name: str) -> None:
    if store.principal_by_name(op.connection, op.workspace, name) is not None:
        raise duplicate("principal", name)


def _record(op: Operation, action: Action, found: Principal, *, awaited: bool = False) -> None:
    op.record(
        action,
        principal_resource(found.id).name,
        kind=ChangeKind.PRINCIPAL,
        entity=found.id,
        detail={"kind": found.kind, "name": found.name, "state": found.state},
        awaited=awaited,
    )


def _info(found: Principal) -> PrincipalInfo:
    return PrincipalInfo(**_fields(found))


def _fields(found: Principal) -> dict[str, Any]:
    return {
        "id": found.id,
        "kind": found.kind,
        "name": found.name,
        "state": found.state,
        "metadata": found.metadata,
        "created_at": rfc3339(found.created_at),
        "created_by": found.created_by,
        "revision": found.revision,
    }
