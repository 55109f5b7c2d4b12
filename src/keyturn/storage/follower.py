"""The follower: one poll loop per worker that carries the change log's news to whoever keeps state in memory.

    tick (25 ms, or at once after a commit of this process that changed more than the audit log)
      head of another log, or below what was applied, or cursor gone -> reload everything, not fresh meanwhile
      head above applied -> past numbers that this process gave to audit leaves alone
                         -> read the other rows and the current state of their entities -> apply -> advance

A consumer reads on a database thread or connection (`load`, `refresh`) and returns a closure that is applied on the
event loop in one step, so that what is served never shows half a change.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keyturn.errors import GoneError, KeyturnError
from keyturn.storage.change_log import READ_MAX, Change, Head, read_changes, read_head, restart_log
from keyturn.storage.rounds import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.storage.database import Database

POLL_SECONDS = 0.025
RETRY_SECONDS = 0.25
LOAD_SECONDS = 300.0


class Consumer(Protocol):
    """State in memory that follows the log."""

    def load(self, connection: Connection) -> Callable[[], None]:
        """Read everything; the returned closure replaces the whole state."""
        ...

    def refresh(self, connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:
        """Read the current state of what changed; the returned closure applies it."""
        ...


class Position(Protocol):
    """Told how far the log has been applied (the freshness state machine, the confirming thread)."""

    def reloaded(self, log_id: str, seq: int) -> None:
        """Everything was reloaded from a snapshot at `seq` of the log."""
        ...

    def advanced(self, seq: int, awaited: int) -> None:
        """Everything up to `seq` has been applied; somebody waits for `awaited`."""
        ...

    def lost(self) -> None:
        """The state no longer follows a known log; nothing may be served from it."""
        ...


@dataclass(frozen=True, slots=True)
class _News:
    head: Head
    changes: list[Change]
    apply: list[Callable[[], None]]


class Follower:
    """Runs the poll loop for the consumers of one worker."""

    def __init__(
        self,
        database: Database,
        consumers: Sequence[Consumer],
        positions: Sequence[Position],
        *,
        page: int = READ_MAX,
    ) -> None:
        """Follow `database` for the consumers, reporting to the positions; at most `page` changes in one step."""
        self._database = database
        self._consumers = consumers
        self._positions = positions
        self._page = page
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.log_id = ""
        self.applied = -1
        self.trouble = Trouble("the change log cannot be followed")
        self._ticked = asyncio.Condition()
        self._rewound: str | None = None
        self._begun = 0
        self._done = 0
        database.on_commit(self._committed, of_news=True)

    async def load(self) -> None:
        """Load the snapshot; register the node first."""
        await self._load()

    async def run(self) -> None:
        """Poll until cancelled; a failing database is retried and counted, never given up on.

        A consumer that raises has left its state unknown: everything is reloaded.
        """
        while True:
            try:
                await self.tick()
            except Exception as error:  # noqa: BLE001 -- counted, logged, and tried again
                self.trouble.met(error)
                if not isinstance(error, KeyturnError):
                    self._lose()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.trouble.over()
            # A timer that wakes, not a timeout: one that expires costs a cancellation and two exceptions each time.
            timer = self._loop.call_later(POLL_SECONDS, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()

    async def tick(self) -> None:
        """Bring the consumers up to the head as it is now."""
        self._begun += 1
        this = self._begun
        head = await self._database.head()
        if head.log_id == self.log_id and head.seq < self.applied:
            self._rewound = self.log_id
            self._lose()
        if self._rewound == head.log_id:
            # The log has lost numbers that were applied here: begin a new one, so that nobody follows the old on.
            await self._database.write(lambda t: restart_log(t.connection, head.log_id, t.now))
            self._rewound = None
        if self.applied < 0 or head.log_id != self.log_id:
            head = await self._load()
        while self.applied < head.seq:
            self.applied = min(head.seq, self._database.leaves.after(self.log_id, self.applied))
            if self.applied < head.seq:
                head = await self._follow()
        for position in self._positions:
            position.advanced(self.applied, head.awaited)
        async with self._ticked:
            self._done = max(self._done, this)
            self._ticked.notify_all()

    def resync(self) -> None:
        """Stop serving from what was loaded, and reload it in the next tick; for the event loop."""
        self._lose()
        self._wake.set()

    async def caught_up(self, timeout_seconds: float) -> bool:
        """Wait for a tick that began after this call, hence saw every commit before it; False on timeout.

        Any number of callers share one tick, so waiting here costs the database nothing.
        """
        wanted = self._begun + 1
        self._wake.set()

        try:
            async with asyncio.timeout(timeout_seconds), self._ticked:
                await self._ticked.wait_for(lambda: self._done >= wanted)
        except TimeoutError:
            return False
        return True

    async def _load(self) -> Head:
        self._lose()

        def work(connection: Connection) -> _News:
            head = read_head(connection)
            return _News(head, [], [consumer.load(connection) for consumer in self._consumers])

        news = await self._database.read(work, within_seconds=LOAD_SECONDS, aside=True)
        for apply in news.apply:
            apply()
        self.log_id, self.applied = news.head.log_id, news.head.seq
        for position in self._positions:
            position.reloaded(news.head.log_id, news.head.seq)
        return news.head

    async def _follow(self) -> Head:
        after = self.applied

        def work(connection: Connection) -> _News:
            head = read_head(connection)
            if head.log_id != self.log_id:
                return _News(head, [], [])
            changes = read_changes(connection, after, limit=self._page)
            return _News(head, changes, [consumer.refresh(connection, changes) for consumer in self._consumers])

        try:
            news = await self._database.read(work)
        except GoneError:
            return await self._load()
        if news.head.log_id != self.log_id:
            return await self._load()
        for apply in news.apply:
            apply()
        if news.changes:
            self.applied = news.changes[-1].seq
        return news.head

    def _lose(self) -> None:
        for position in self._positions:
            position.lost()
        self.log_id, self.applied = "", -1

    def _committed(self, _seq: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(self._wake.set)
