"""The dispatcher: one elected worker ends what is due, source by source.

    every LOOK_SECONDS, or when a batch has ended:
      stand for election -> see which sources have something due -> a lane for each

    a lane        claims a batch of one source, drops its accounts, writes that down, and goes on until nothing is due
    one source    at most LANES at a time, one while it fails: it delays nobody else
    a claim       ends by itself, or when another worker takes over

No lease has a timer: what is due is found by its time in the table, in the order in which it became due.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.leases import lease_store
from keyturn.storage.leadership import Leadership
from keyturn.storage.rounds import Rounds

if TYPE_CHECKING:
    from keyturn.leases.endings import Endings, Work
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

ELECTION: Final = "lease-dispatcher"
LOOK_SECONDS: Final = 0.25
LEADER_SECONDS: Final = 5.0
STAND_AGAIN_SECONDS: Final = 2.0
LANES: Final = 4
LANES_TOGETHER: Final = 256
BATCH: Final = 250
DRAIN_SECONDS: Final = 4.0
RETAIN_EVERY_SECONDS: Final = 3600.0
RETAIN_ROWS: Final = 1000

_log = structlog.get_logger("keyturn")


@dataclass(frozen=True, slots=True)
class LeaseHealth:
    """How the dispatcher of this worker is doing; the counts are its own."""

    leader: bool
    dropped: int
    failed: int
    lanes: int
    failures: int
    """Rounds that ended with an error, which are tried again."""


class LeaseDispatcher:
    """Ends the leases of every workspace of one database."""

    def __init__(self, database: Database, endings: Endings, holder: str) -> None:
        """Stand for election as `holder`, this worker's node id."""
        self._database = database
        self._endings = endings
        self._leadership = Leadership(
            database,
            ELECTION,
            holder,
            seconds=LEADER_SECONDS,
            stand_again_seconds=STAND_AGAIN_SECONDS,
            took_over=self._take_over,
        )
        self._retain_after = 0.0
        self._rounds = Rounds(self.dispatch_once, every_seconds=LOOK_SECONDS, failing="leases could not be ended")
        self._stopping = False
        self._lanes: dict[asyncio.Task[None], str] = {}
        self._claimed: dict[int, Work] = {}
        self._failing: set[str] = set()
        self._dropped = self._failed = 0

    @property
    def health(self) -> LeaseHealth:
        """How it is doing."""
        return LeaseHealth(
            self._leadership.is_held, self._dropped, self._failed, len(self._lanes), self._rounds.failures
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until stopped; then let batches end, and give the lead up."""
        await self._rounds.run(stop)
        await self._break_off()
        await self._rounds.attempt(self._leadership.resign)

    async def dispatch_once(self) -> int:
        """Do one round: open a lane for each source that has something due; return how many were opened."""
        now, busy = self._database.clock.now(), self._busy()
        # Who does not lead looks after claims too: their leader may have been killed.
        claimed = not self._leadership.is_held
        due = await self._database.read(lambda c: lease_store.due_sources(c, now, busy, claimed=claimed))
        retains = self._database.clock.boottime() >= self._retain_after
        if not (due or retains or (self._lanes and self._leadership.is_held)):
            return 0
        if not await self._leadership.lead():
            return 0
        if retains:
            await self._retain()
        opened = 0
        for source in due[: max(0, LANES_TOGETHER - len(self._lanes))]:
            task = asyncio.create_task(self._lane(source), name=f"leases-{source}")
            self._lanes[task] = source
            task.add_done_callback(self._ended)
            opened += 1
        return opened

    async def settled(self) -> None:
        """Return when every lane has ended."""
        while self._lanes:
            await asyncio.wait(list(self._lanes))

    # --- leading -------------------------------------------------------------------------------------------------

    def _take_over(self, transaction: Transaction) -> None:
        mine = [one.id for work in self._claimed.values() for one in work.leases]
        lease_store.release_all(transaction.connection, transaction.now, mine)

    # --- work ----------------------------------------------------------------------------------------------------

    async def _lane(self, source: str) -> None:
        while self._leadership.is_held and not self._stopping:

            def claim(transaction: Transaction) -> Work | None:
                connection, timing = transaction.connection, self._endings.timing
                claimed = lease_store.claim(connection, source, transaction.now, timing.claim, BATCH)
                return self._endings.prepare(connection, claimed)

            work = (await self._database.write(claim)).value
            if work is None:
                return
            if len(work.leases) == BATCH and source not in self._failing:
                self._rounds.wake()  # there is more: another lane
            self._claimed[id(work)] = work
            try:
                ended = await self._endings.finish(work)
            finally:
                del self._claimed[id(work)]
            failures = ended.failures
            self._failed += failures
            self._dropped += len(ended.steps) - failures
            if failures:
                self._failing.add(source)
                return
            self._failing.discard(source)

    def _busy(self) -> set[str]:
        """Return the sources that have as many lanes as they may."""
        using = Counter(self._lanes.values())
        return {one for one, count in using.items() if count >= LANES or one in self._failing}

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._lanes.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._rounds.failures += 1
            _log.warning("what became of leases could not be kept", reason=type(error).__name__)

    async def _retain(self) -> None:
        self._retain_after = self._database.clock.boottime() + RETAIN_EVERY_SECONDS

        def unit(transaction: Transaction) -> int:
            return lease_store.drop_old(transaction.connection, transaction.now, RETAIN_ROWS)

        while (await self._database.write(unit)).value >= RETAIN_ROWS:
            continue

    async def _break_off(self) -> None:
        self._stopping = True
        if not self._lanes:
            return
        _, late = await asyncio.wait(list(self._lanes), timeout=DRAIN_SECONDS)
        broken = [one for work in self._claimed.values() for one in work.leases]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if broken:
            await self._rounds.attempt(
                lambda: self._database.write(lambda t: lease_store.release(t.connection, broken))
            )
