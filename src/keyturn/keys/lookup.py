"""Look-ups in the database behind the replica: what it does not know yet, and what it may not answer while stale.

    unknown id     one look-up for all who ask for it, under a token bucket; no room -> wait until this node has seen
                   every commit, then what is still unknown does not exist
    stale node     read through: caller and key from one snapshot

Both take a slot: a bounded number reads at once, and waits a bounded time.

Nothing negative is remembered.  A view is a small replica of its own; it answers one question and is dropped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from keyturn.errors import StaleError
from keyturn.kernel.token_bucket import TokenBucket
from keyturn.kernel.tokenformat import version_id_of
from keyturn.verify.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.kernel.clock import Clock
    from keyturn.keys.callers import CallerProofs, ProvenCaller
    from keyturn.keys.ports import CaughtUp, RecordPair, Records
    from keyturn.storage.database import Database
    from keyturn.verify.model import Request

LOOKUPS_PER_SECOND: Final = 50.0
LOOKUPS_BURST: Final = 100.0
CAUGHT_UP_SECONDS: Final = 2.0

_Question = tuple[str, "str | None", str]


class Lookup:
    """Asks the database on behalf of verify; for one event loop."""

    def __init__(
        self, database: Database, door: Door, source: Records, proofs: CallerProofs, follower: CaughtUp, clock: Clock
    ) -> None:
        """Look up in `database`, read through `door`."""
        self._database = database
        self._door = door
        self._source = source
        self._proofs = proofs
        self._follower = follower
        self._bucket = TokenBucket(LOOKUPS_PER_SECOND, LOOKUPS_BURST, clock.boottime)
        self._flights: dict[_Question, asyncio.Task[Replica]] = {}
        self._slots = proofs.slots
        self.lookups = 0
        self.throttled = 0
        self.read_throughs = 0

    async def unknown(self, workspace: str, request: Request) -> Replica | None:
        """Look up a key that the replica does not know.

        None means that there is no room for a look-up and this node has meanwhile seen every commit: look into the
        replica again.  Raises StorageError, or StaleError when the node did not catch up.
        """
        # Kept apart by workspace and keyspace: foreign keys are searched among those of one.
        question = (workspace, request.keyspace, request.presented)
        flight = self._flights.get(question)
        if flight is None:
            if self._slots.crowded or not self._bucket.take():
                await self._wait_for_news()
                return None
            self.lookups += 1
            flight = asyncio.create_task(self._look_up(workspace, request))
            self._flights[question] = flight
            flight.add_done_callback(lambda done: self._landed(question, done))
        return await asyncio.shield(flight)

    async def read_through(self, credentials: Credentials, request: Request) -> tuple[ProvenCaller, Replica]:
        """Prove the caller and read the key from one snapshot.

        Raises UnauthenticatedError, StorageError, or StaleError when the database is too slow for all who wait.
        """

        def work(operation: Operation) -> tuple[ProvenCaller, Replica]:
            caller = self._proofs.read(operation, credentials)
            return caller, self._view(operation.connection, caller.workspace, request)

        async with self._slots.slot():
            self.read_throughs += 1
            return await self._door.read(credentials, work)

    def _landed(self, question: _Question, flight: asyncio.Task[Replica]) -> None:
        self._flights.pop(question, None)
        if not flight.cancelled():
            flight.exception()  # seen, even when everybody who waited has gone

    async def _wait_for_news(self) -> None:
        self.throttled += 1
        if not await self._follower.caught_up(CAUGHT_UP_SECONDS):
            raise StaleError("too many unknown keys are being tried", hint="try again in a second")

    async def _look_up(self, workspace: str, request: Request) -> Replica:
        async with self._slots.slot():
            return await self._database.read(lambda connection: self._view(connection, workspace, request))

    def _view(self, connection: Connection, workspace: str, request: Request) -> Replica:
        view = Replica()
        version_id = version_id_of(request.presented)
        pair = None if version_id is None else self._source.of_version(connection, version_id)
        found: Sequence[RecordPair] = (
            self._source.foreign(connection, workspace, request.presented, request.keyspace)
            if pair is None
            else (pair,)
        )
        for key, keyspace in found:
            view.load_keyspace(keyspace)
            plans, owner = self._source.terms(connection, key, keyspace)
            for plan in plans:
                view.load_plan(plan)
            if owner is not None:
                view.apply_owner(owner, owner.id)
            view.apply_key(key, key.id)
        return view
