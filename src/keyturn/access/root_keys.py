"""Operations on root keys: which there are, and moving every workspace key to the one that seals.

A rewrap asks for keys in small batches: read, unwrap and wrap outside any transaction (a service may be asked), then
replace each row if it still is what was read.  Killed at any moment it leaves each workspace key under one root key
or the other, and the next run goes on with what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, update

from keyturn.access.caller import Resource
from keyturn.errors import KeyturnError
from keyturn.kernel.clock import boottime
from keyturn.storage.keyring import OPEN, RETIRED, require_in_use
from keyturn.storage.schema import fact, workspace_key
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.root_keys import Rewrapped, RootKeyInfo, RootKeyList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.storage.kek import Wrapped
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.root_keys import RewrapRootKey

BATCH_KEYS: Final = 100
BATCH_KEYS_ASKED: Final = 20
"""How many are rewrapped in one unit of work; fewer where a service is asked three times for each."""
WORK_SECONDS: Final = 5.0
"""How long one request works at most, but for its last batch; the caller asks again."""

_UNNAMED: Final = re.compile(r"[^A-Za-z0-9_-]+")


def root_key_resource(kek_id: str) -> Resource:
    """Name a root key for grants: what a name may not hold becomes `-`."""
    return Resource(f"~instance/root_key/{_UNNAMED.sub('-', kek_id).strip('-')}")


def census(connection: Connection) -> dict[str, int]:
    """Count the workspace keys by the root key that they are wrapped under."""
    rows = connection.execute(
        select(workspace_key.c.kek_id, func.count())
        .where(workspace_key.c.state == OPEN)
        .group_by(workspace_key.c.kek_id)
    ).all()
    return {row[0]: row[1] for row in rows}


def retired_keys(connection: Connection) -> set[str]:
    """Return the ids of the root keys that were retired."""
    rows = connection.execute(select(fact.c.name).where(fact.c.name.startswith(RETIRED, autoescape=True))).all()
    return {row.name.removeprefix(RETIRED) for row in rows}


class RootKeyService:
    """What can be done with root keys while servers run."""

    def __init__(self, door: Door, keyring: Keyring) -> None:
        """Need the door, and the keyring that has the root keys."""
        self._door = door
        self._keyring = keyring

    async def census(self, credentials: Credentials) -> RootKeyList:
        """Tell which root keys there are, as this server sees them; those the caller may not read are left out."""
        with contextlib.suppress(KeyturnError):  # what it had before is told then
            await asyncio.to_thread(self._keyring.provider.refresh)

        def work(op: Operation) -> RootKeyList:
            counted, retired = census(op.connection), retired_keys(op.connection)
            given = self._keyring.provider.ids
            items = [
                RootKeyInfo(
                    id=kek_id,
                    seals=kek_id == given[0],
                    given=kek_id in given,
                    retired=kek_id in retired,
                    workspace_keys=counted.get(kek_id, 0),
                )
                for kek_id in dict.fromkeys([*given, *counted])
                if op.allows(Action.ROOT_KEY_READ, root_key_resource(kek_id))
            ]
            return RootKeyList(items=tuple(items))

        return await self._door.read(credentials, work)

    async def rewrap(self, credentials: Credentials, request: RewrapRootKey) -> Rewrapped:
        """Wrap workspace keys under the root key that seals, up to a bound and for a few seconds.

        Raises KekError when an old root key is not given or the new one was retired, UnavailableError when a service
        is out of reach; what was rewrapped before stays so.
        """
        await self._door.read(credentials, lambda op: self._authorise(op, self._keyring.provider.id))
        await asyncio.to_thread(self._keyring.provider.refresh)
        done = 0
        deadline = boottime() + WORK_SECONDS
        while done < request.keys_max and boottime() < deadline:
            moved = await self._batch(credentials, min(BATCH_KEYS, request.keys_max - done))
            if moved is None:
                break
            done += moved
        target = self._keyring.provider.id
        remaining = await self._door.read(credentials, lambda op: self._remaining(op, target))
        return Rewrapped(root_key=target, rewrapped=done, remaining=remaining)

    async def _batch(self, credentials: Credentials, count: int) -> int | None:
        target = self._keyring.provider.id
        if self._keyring.provider.asks_a_service(target):
            count = min(count, BATCH_KEYS_ASKED)
        rows = await self._door.read(credentials, lambda op: self._outdated(op, target, count))
        if not rows:
            return None
        made = await asyncio.to_thread(self._wrapped, rows)
        return (await self._door.write(credentials, lambda op: self._replace(op, target, rows, made))).value

    def _authorise(self, op: Operation, kek_id: str) -> None:
        op.authorise(Action.ROOT_KEY_REWRAP, root_key_resource(kek_id))

    def _outdated(self, op: Operation, target: str, count: int) -> list[Any]:
        self._authorise(op, target)
        outdated = (
            select(workspace_key.c.id, workspace_key.c.workspace, workspace_key.c.kek_id, workspace_key.c.wrapped)
            .where(workspace_key.c.state == OPEN, workspace_key.c.kek_id != target)
            .order_by(workspace_key.c.id)
            .limit(count)
        )
        return list(op.connection.execute(outdated).all())

    def _wrapped(self, rows: Sequence[Row[Any]]) -> list[Wrapped]:
        provider = self._keyring.provider
        return [provider.wrap(provider.unwrap(row.kek_id, row.wrapped)) for row in rows]

    def _replace(self, op: Operation, target: str, rows: Sequence[Row[Any]], made: Sequence[Wrapped]) -> int:
        self._authorise(op, target)
        op.unchanged()
        done: Counter[str] = Counter()
        for row, new in zip(rows, made, strict=True):
            require_in_use(op.connection, new.kek_id)
            replaced = op.connection.execute(
                update(workspace_key)
                .where(
                    workspace_key.c.id == row.id,
                    workspace_key.c.kek_id == row.kek_id,
                    workspace_key.c.wrapped == row.wrapped,
                )
                .values(kek_id=new.kek_id, wrapped=new.wrapped)
            )
            if replaced.rowcount == 1:
                done[new.kek_id] += 1
                op.record(
                    Action.ROOT_KEY_REWRAP,
                    root_key_resource(new.kek_id).name,
                    kind=ChangeKind.WORKSPACE_KEY,
                    entity=row.id,
                    detail={"workspace_key": row.id, "from": row.kek_id, "to": new.kek_id},
                    workspace=row.workspace,
                )
        return done.total()

    def _remaining(self, op: Operation, target: str) -> int:
        return sum(count for kek_id, count in census(op.connection).items() if kek_id != target)
