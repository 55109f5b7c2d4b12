"""Operations on a workspace's own keys: rotate, reseal, destroy, and how many values are under each.

    rotate     a new key seals from now on; the others open
    reseal     values move to the newest key, in small units of work
    destroy    the wrapped bytes are overwritten; what is under it is lost for good

A key with values under it is destroyed by `force` only, which is how all held secrets of a workspace are made
unreadable at once.  The workspace's server keys (peppers, signing keys) are moved to the newest key first, so its keys
still verify and its audit log goes on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.paging import page
from keyturn.errors import ConflictError, InputError, not_found
from keyturn.kernel.clock import boottime, rfc3339
from keyturn.storage.keyring import DESTROYED
from keyturn.storage.resealing import outdated_keys, reseal, values_under
from keyturn.storage.schema import workspace_key
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.root_keys import Resealed, WorkspaceKeyDestroyed, WorkspaceKeyInfo, WorkspaceKeyPage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.storage.kek import Wrapped
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.resealing import Batch
    from keyturn.wire.root_keys import DestroyWorkspaceKey, ResealWorkspace

BATCH_VALUES: Final = 100
WORK_SECONDS: Final = 5.0
"""How long one request works at most, but for its last unit; the caller asks again."""
SERVER_KEYS_MAX: Final = 100_000


def workspace_key_resource(key_id: str) -> Resource:
    """Name a workspace key for grants."""
    return Resource(f"workspace_key/{key_id}")


class WorkspaceKeyService:
    """What can be done with the keys of the caller's workspace."""

    def __init__(self, door: Door, keyring: Keyring) -> None:
        """Need the door and the keyring."""
        self._door = door
        self._keyring = keyring

    async def list(self, credentials: Credentials, *, cursor: str | None = None, limit: int = 50) -> WorkspaceKeyPage:
        """List the workspace keys that the caller may read, oldest first."""

        def work(op: Operation) -> WorkspaceKeyPage:
            found, following = page(
                op,
                lambda after, count: _rows(op, after, count),
                lambda row: op.allows(Action.WORKSPACE_KEY_READ, workspace_key_resource(row.id)),
                cursor,
                limit,
                reading=Action.WORKSPACE_KEY_READ,
            )
            counted = values_under(op.connection, op.workspace)
            newest = self._keyring.newest(op.connection, op.workspace)
            return WorkspaceKeyPage(items=tuple(_info(row, newest, counted) for row in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def rotate(self, credentials: Credentials, *, idempotency: str | None = None) -> WorkspaceKeyInfo:
        """Make a new workspace key, which seals from now on."""
        attempt = Attempt.of(credentials, Action.WORKSPACE_KEY_ROTATE, idempotency)
        await self._door.read(credentials, lambda op: self._authorised(op, Action.WORKSPACE_KEY_ROTATE))
        made = await asyncio.to_thread(self._keyring.wrapped_key)

        def work(op: Operation) -> WorkspaceKeyInfo:
            self._authorised(op, Action.WORKSPACE_KEY_ROTATE)
            replay = Replay(WorkspaceKeyInfo, lambda one: one.id, lambda key_id: self._show(op, key_id))
            return idempotent(op, attempt, replay, lambda: self._rotate(op, made))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def reseal(self, credentials: Credentials, request: ResealWorkspace) -> Resealed:
        """Seal values under the newest workspace key, up to a bound and for a few seconds; each unit is on record."""
        done = 0
        unopened: list[str] = []
        deadline = boottime() + WORK_SECONDS
        for held in (False, True):
            after: str | None = ""
            while after is not None and done < request.values_max and boottime() < deadline:
                count = min(BATCH_VALUES, request.values_max - done)

                def work(op: Operation, start: str = after, count: int = count, held: bool = held) -> Batch:  # noqa: FBT001 -- of this loop
                    return self._reseal(op, start, count, held=held)

                batch = (await self._door.write(credentials, work)).value
                done += batch.resealed
                unopened += batch.unopened
                after = batch.last
        return await self._door.read(credentials, lambda op: self._resealed(op, done, unopened))

    async def destroy(
        self, credentials: Credentials, key_id: str, request: DestroyWorkspaceKey
    ) -> WorkspaceKeyDestroyed:
        """Destroy a workspace key; harmless when it is destroyed already.

        Raises ConflictError while values are under it, or it seals, unless forced and confirmed.
        """

        def work(op: Operation) -> WorkspaceKeyDestroyed:
            row = _row(op, key_id)
            resource = None if row is None else workspace_key_resource(key_id)
            absent = workspace_key_resource(key_id)
            op.authorise(Action.WORKSPACE_KEY_DESTROY, resource, kind="workspace key", name=key_id, absent=absent)
            if row is None:
                raise not_found("workspace key", key_id)
            if row.state == DESTROYED:
                op.unchanged()
                return WorkspaceKeyDestroyed(id=key_id, state=DESTROYED, lost=0)
            return self._destroy(op, key_id, request)

        done = (await self._door.write(credentials, work)).value
        self._keyring.forget([key_id])
        return done

    def _authorised(self, op: Operation, action: Action) -> str:
        newest = self._keyring.newest(op.connection, op.workspace) or "none"
        op.authorise(action, workspace_key_resource(newest))
        return newest

    def _rotate(self, op: Operation, made: Wrapped) -> WorkspaceKeyInfo:
        key_id = self._keyring.create_workspace_key(op.connection, op.workspace, op.now, made)
        _record(op, Action.WORKSPACE_KEY_ROTATE, key_id, root_key=made.kek_id)
        return self._show(op, key_id)

    def _show(self, op: Operation, key_id: str) -> WorkspaceKeyInfo:
        row = _row(op, key_id)
        if row is None:
            raise not_found("workspace key", key_id)
        newest = self._keyring.newest(op.connection, op.workspace)
        return _info(row, newest, values_under(op.connection, op.workspace))

    def _reseal(self, op: Operation, after: str, count: int, *, held: bool) -> Batch:
        newest = self._authorised(op, Action.WORKSPACE_KEY_RESEAL)
        batch = reseal(self._keyring, op.connection, op.workspace, op.now, limit=count, after=after, held=held)
        if batch.resealed:
            _record(op, Action.WORKSPACE_KEY_RESEAL, newest, values=batch.resealed, unopened=len(batch.unopened))
        else:
            op.unchanged()
        return batch

    def _resealed(self, op: Operation, done: int, unopened: Sequence[str]) -> Resealed:
        newest = self._authorised(op, Action.WORKSPACE_KEY_RESEAL)
        counted = values_under(op.connection, op.workspace)
        outdated = outdated_keys(self._keyring, op.connection, op.workspace)
        remaining = sum(counted.get(key_id, 0) for key_id in outdated)
        return Resealed(workspace_key=newest, resealed=done, remaining=remaining, unopened=tuple(unopened))

    def _destroy(self, op: Operation, key_id: str, request: DestroyWorkspaceKey) -> WorkspaceKeyDestroyed:
        connection = op.connection
        if request.force:
            if request.confirm != key_id:
                raise InputError("confirm: expected the id of the workspace key", field="confirm")
            if self._keyring.newest(connection, op.workspace) == key_id:
                self._keyring.create_workspace_key(connection, op.workspace, op.now)
            reseal(self._keyring, connection, op.workspace, op.now, limit=SERVER_KEYS_MAX, held=False)
        elif self._keyring.newest(connection, op.workspace) == key_id:
            message = f"workspace key {key_id} is the one that seals"
            raise ConflictError(message, hint="rotate and reseal first: `keyturn workspace-keys rotate`")
        lost = values_under(connection, op.workspace).get(key_id, 0)
        if lost and not request.force:
            message = f"{lost} values are sealed under workspace key {key_id}"
            hint = "`keyturn workspace-keys reseal` moves them; destroy with force loses them for good"
            raise ConflictError(message, code="workspace_key_in_use", hint=hint)
        connection.execute(
            update(workspace_key).where(workspace_key.c.id == key_id).values(state=DESTROYED, wrapped=b"")
        )
        _record(op, Action.WORKSPACE_KEY_DESTROY, key_id, lost=lost)
        return WorkspaceKeyDestroyed(id=key_id, state=DESTROYED, lost=lost)


def _rows(op: Operation, after: str, count: int) -> Sequence[Row[Any]]:
    return op.connection.execute(
        select(workspace_key)
        .where(workspace_key.c.workspace == op.workspace, workspace_key.c.id > after)
        .order_by(workspace_key.c.id)
        .limit(count)
    ).all()


def _row(op: Operation, key_id: str) -> Row[Any] | None:
    return op.connection.execute(
        select(workspace_key).where(workspace_key.c.workspace == op.workspace, workspace_key.c.id == key_id)
    ).first()


def _info(row: Row[Any], newest: str | None, counted: dict[str, int]) -> WorkspaceKeyInfo:
    return WorkspaceKeyInfo(
        id=row.id,
        state=row.state,
        seals=row.id == newest,
        root_key=row.kek_id,
        values=counted.get(row.id, 0),
        created_at=rfc3339(row.created_at),
    )


def _record(op: Operation, action: Action, key_id: str, **detail: str | int) -> None:
    op.record(
        action,
        workspace_key_resource(key_id).name,
        kind=ChangeKind.WORKSPACE_KEY,
        entity=key_id,
        detail=dict(detail),
    )
