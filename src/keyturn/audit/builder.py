"""The builder: one elected worker that turns leaves into a signed tree, behind the log and off the write path.

    every BUILD_EVERY_SECONDS, when the log has moved:
      stand for election -> per workspace: plan (read, hash) -> one short write: swap, tiles, checkpoint -> sinks

The lease only saves work.  Two leaders at once are harmless: the one whose swap fails keeps nothing.
A tree that is not the one last signed is never signed again; its workspace is reported, the others go on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from keyturn.audit.signing import sign_growth
from keyturn.audit.sinks import Publisher, SinkHealth
from keyturn.audit.tree import Growth, StoredCheckpoint, plan, read_checkpoint
from keyturn.errors import ConflictError, IntegrityError, KeyturnError
from keyturn.storage import election
from keyturn.storage.rounds import Trouble
from keyturn.storage.schema import audit_leaf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.audit.sinks import CheckpointSink
    from keyturn.storage.database import Database
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction

BUILD_EVERY_SECONDS = 0.5
LEASE_SECONDS = 5.0
STAND_AGAIN_SECONDS = 2.0
ELECTION = "audit-builder"


@dataclass(frozen=True, slots=True)
class BuilderHealth:
    """How the builder of this worker is doing."""

    leader: bool
    built: int
    """Leaves this worker has added to trees."""
    failures: int
    broken: tuple[str, ...]
    """Workspaces whose stored tree does not fit together, and is not signed any more."""
    sinks: tuple[SinkHealth, ...]


@dataclass(slots=True)
class _Progress:
    """What the leader knows; forgotten when it is not the leader."""

    lease_until: float = 0.0
    stand_after: float = 0.0
    cursor: int | None = None
    """Everything up to this number is in its tree, except in `behind`; None: not known."""
    behind: set[str] = field(default_factory=set)


class Builder:
    """Builds and signs the trees of every workspace of one database."""

    def __init__(self, database: Database, keyring: Keyring, holder: str, sinks: Sequence[CheckpointSink] = ()) -> None:
        """Stand for election as `holder`, this worker's node id."""
        self._database = database
        self._keyring = keyring
        self._holder = holder
        self._publishers = [Publisher(sink) for sink in sinks]
        self._progress = _Progress()
        self._built = 0
        self._trouble = Trouble("the audit trees cannot be built")
        self._broken: dict[str, Trouble] = {}

    @property
    def health(self) -> BuilderHealth:
        """How this builder and its sinks are doing."""
        return BuilderHealth(
            leader=self._is_leader,
            built=self._built,
            failures=self._trouble.failures,
            broken=tuple(sorted(self._broken)),
            sinks=tuple(publisher.health for publisher in self._publishers),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Build until stopped, then once more, and give the lease up; failures are counted and tried again."""
        published = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for publisher in self._publishers:
                group.create_task(publisher.run(published))
            while not stop.is_set():
                await self._build_quietly()
                try:
                    await asyncio.wait_for(stop.wait(), BUILD_EVERY_SECONDS)
                except TimeoutError:
                    continue
            await self._build_quietly()
            await self._resign()
            # Only now: what the last build signed is to reach the sinks too.
            published.set()

    async def build_once(self) -> int:
        """Bring every tree up to the log as it is now; return how many leaves were added.

        0 when there was no news, or another worker leads.
        """
        head = await self._database.head()
        progress = self._progress
        if progress.cursor is not None and progress.cursor >= head.seq and not progress.behind:
            return 0
        if not self._is_leader and not await self._stand():
            return 0
        cursor = progress.cursor
        news = await self._database.read(lambda connection: _workspaces_after(connection, cursor))
        added = 0
        behind: set[str] = set()
        for workspace in sorted({*news, *progress.behind}):
            try:
                added += await self._build(workspace, repeat=cursor is None)
                self._mend(workspace)
            except IntegrityError as error:
                self._break(workspace, error)
                behind.add(workspace)
            except ConflictError as error:
                if error.code != "duplicate":
                    # Another leader was faster: begin again from what it left.
                    self._progress = _Progress()
                    return added
                # A row is in the way.  Two first builds at once look like this too, and clear at the next pass.
                self._break(workspace, error)
                behind.add(workspace)
        progress.cursor, progress.behind = head.seq, behind
        return added

    async def _build(self, workspace: str, *, repeat: bool) -> int:
        """Add everything there is for one workspace, a step at a time.

        `repeat` publishes the newest checkpoint again when there is nothing to add: who signed it may not have.
        """
        added = 0
        while True:
            growth = await self._database.read(lambda connection: plan(connection, workspace))
            if growth is None:
                if repeat and not added and self._publishers:
                    await self._publish_latest(workspace)
                return added
            signed = await self._store(growth)
            for publisher in self._publishers:
                publisher.publish([signed.note])
            step = growth.after.size - (growth.before.size if growth.before else 0)
            added += step
            self._built += step
            if growth.is_last:
                return added

    async def _publish_latest(self, workspace: str) -> None:
        latest = await self._database.read(lambda connection: read_checkpoint(connection, workspace))
        for publisher in self._publishers:
            publisher.publish([] if latest is None else [latest.note])

    async def _store(self, growth: Growth) -> StoredCheckpoint:
        def work(transaction: Transaction) -> StoredCheckpoint | None:
            connection = transaction.connection
            if not election.stand(connection, ELECTION, self._holder, LEASE_SECONDS, transaction.now):
                return None
            growth.store(connection)
            return sign_growth(connection, self._keyring, growth, transaction.now)

        sent = self._database.clock.boottime()
        committed = await self._database.write(work)
        if committed.value is None:
            raise ConflictError("another worker leads")
        self._progress.lease_until = sent + LEASE_SECONDS
        return committed.value

    @property
    def _is_leader(self) -> bool:
        return self._database.clock.boottime() < self._progress.lease_until

    async def _stand(self) -> bool:
        now = self._database.clock.boottime()
        if now < self._progress.stand_after:
            return False
        try:
            elected = await self._database.write(
                lambda transaction: election.stand(
                    transaction.connection, ELECTION, self._holder, LEASE_SECONDS, transaction.now
                )
            )
        except ConflictError:
            return False
        if not elected.value:
            self._progress = _Progress(stand_after=now + STAND_AGAIN_SECONDS)
            return False
        self._progress.lease_until = now + LEASE_SECONDS
        return True

    async def _resign(self) -> None:
        if not self._is_leader:
            return
        self._progress = _Progress()
        try:
            await self._database.write(
                lambda transaction: election.resign(transaction.connection, ELECTION, self._holder)
            )
        except KeyturnError as error:
            self._trouble.met(error)

    def _break(self, workspace: str, error: KeyturnError) -> None:
        trouble = self._broken.setdefault(workspace, Trouble(f"the audit tree of {workspace} cannot be added to"))
        trouble.met(error)

    def _mend(self, workspace: str) -> None:
        trouble = self._broken.pop(workspace, None)
        if trouble is not None:
            trouble.over()

    async def _build_quietly(self) -> None:
        try:
            await self.build_once()
        except Exception as error:  # noqa: BLE001 -- building must outlive our own bugs
            self._trouble.met(error)
        else:
            self._trouble.over()


def _workspaces_after(connection: Connection, cursor: int | None) -> list[str]:
    """Return the workspaces that have leaves after the cursor; every workspace that has any when it is None."""
    if cursor is not None:
        rows = connection.execute(select(audit_leaf.c.workspace).where(audit_leaf.c.seq > cursor).distinct())
        return [row.workspace for row in rows]
    found: list[str] = []
    last = ""
    # One index lookup per workspace, where DISTINCT would read the whole log.
    while True:
        following = connection.execute(
            select(func.min(audit_leaf.c.workspace)).where(audit_leaf.c.workspace > last)
        ).scalar()
        if following is None:
            return found
        found.append(following)
        last = following
