"""The port: one database, read and written through closures, whichever engine is below.

`write` queues a unit of work; one batch at a time is open per worker, so units that arrive together share
a commit.  It returns after the commit is durable.  `read` runs a closure in a read-only transaction.
Write transactions follow one another, on either engine and over all nodes: what a unit has read is still so
when it commits.  Foreign exceptions are translated in `faults`; nothing above sees a driver's error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sqlite3
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.exc import IntegrityError

from keyturn.errors import BrokenInvariantError, StorageError
from keyturn.storage.change_log import append
from keyturn.storage.faults import translate
from keyturn.storage.transaction import ChangeKind, Committed, Transaction, run_units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.kernel.clock import Clock
    from keyturn.storage.change_log import Head
    from keyturn.storage.nodes import Confirmation

T = TypeVar("T")

BATCH_MAX = 64
QUEUE_MAX = 2048
LEAF_RUNS_MAX = 1024
WRITE_WAIT_SECONDS = 15.0
READ_SECONDS = 30.0


@dataclass(slots=True)
class Job:
    """A queued unit of work and the future its caller waits on."""

    work: Callable[[Transaction], object]
    done: concurrent.futures.Future[Committed[object]] = field(default_factory=concurrent.futures.Future)


class LeafRuns:
    """Which numbers of the log this process has given to audit leaves alone: nobody has to read those rows.

    Written by the writer, read by followers.  What is not known here is read from the database.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._runs: dict[int, tuple[str, int]] = {}

    def add(self, log_id: str, first: int, last: int) -> None:
        """Take note of a run that was committed."""
        if len(self._runs) >= LEAF_RUNS_MAX:
            self._runs.pop(next(iter(self._runs)), None)
        self._runs[first] = (log_id, last)

    def after(self, log_id: str, number: int) -> int:
        """Return the number up to which nothing but leaves follows `number`, in that log."""
        while (run := self._runs.get(number + 1)) is not None and run[0] == log_id:
            number = run[1]
        return number


class Database(ABC):
    """The system of record.  Open it before use; `close` finishes queued work first."""

    dialect: str

    def __init__(self, clock: Clock) -> None:
        """Hold the clock that stamps units of work."""
        self.clock = clock
        self.write_wait_seconds = WRITE_WAIT_SECONDS
        self.leaves = LeafRuns()
        self._listeners: list[tuple[Callable[[int], None], bool]] = []

    @abstractmethod
    async def open(self) -> None:
        """Connect; raises StorageError naming what to do when the database is out of reach."""

    @abstractmethod
    async def close(self) -> None:
        """Finish queued units, then let go of every connection."""

    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        """Run a unit of work and return once it is durable.

        Raises whatever the unit raised (nothing of it is kept), or StorageError when the queue is full, the
        database refuses, or no answer came within `write_wait_seconds`.  The outcome is unknown only when the
        code is `storage_unknown`; otherwise nothing was changed.  Cancelling a write that has not begun undoes it.
        """
        job = self._submit(Job(work))
        try:
            async with asyncio.timeout(self.write_wait_seconds):
                return _typed(await asyncio.wrap_future(job.done))
        except TimeoutError:
            raise _gave_up(job, self.write_wait_seconds) from None

    @abstractmethod
    async def read(
        self, work: Callable[[Connection], T], *, within_seconds: float = READ_SECONDS, aside: bool = False
    ) -> T:
        """Run a closure in a read-only transaction that sees one consistent state.

        The closure may run twice when a connection turns out to be broken.  `aside` keeps it off the event loop:
        for one that computes for long, such as the load of a snapshot.
        """

    @abstractmethod
    async def maintain(self, work: Callable[[Connection], T]) -> T:
        """Run one long closure in a write transaction of its own, past the queue and its time limits.

        For offline work such as a restore: other writers wait meanwhile, and nothing is numbered.
        """

    @abstractmethod
    async def head(self) -> Head:
        """Read the head row, as cheaply as the engine allows."""

    @abstractmethod
    def confirm(self, node: str, log_id: str, applied: int) -> Confirmation:
        """Write a node's *confirm*, and read the head after that write is visible; blocking.

        For one thread of its own, the confirming thread.  Raises StorageError.
        """

    @abstractmethod
    def close_confirm(self) -> None:
        """Let go of what `confirm` holds; called from the confirming thread when it ends."""

    @abstractmethod
    def _submit(self, job: Job) -> Job:
        """Queue a unit; raises StorageError when the queue is full or the database is not open."""

    def on_commit(self, listener: Callable[[int], None], *, of_news: bool = False) -> None:
        """Call `listener(seq)` after each numbered commit of this process; it may run in any thread.

        `of_news` leaves out commits of nothing but audit leaves, after which no entity has another state.
        """
        self._listeners.append((listener, of_news))

    def _announce(self, batch: Batch) -> None:
        if batch.seq and not batch.has_news:
            self.leaves.add(batch.log_id, batch.first, batch.seq)
        for listener, of_news in self._listeners if batch.seq else ():
            if of_news and not batch.has_news:
                continue
            # A listener's bug must not end the writer: followers find the commit by polling anyway.
            with contextlib.suppress(Exception):
                listener(batch.seq)


@dataclass(frozen=True, slots=True)
class Batch:
    """Units that were run and numbered; nobody is answered before COMMIT has made them durable."""

    answers: list[Callable[[], None]]
    seq: int
    """The last number given, 0 when there was none."""
    first: int
    log_id: str
    has_news: bool
    """Whether a change row is there for more than its leaf."""

    def answer(self) -> None:
        """Answer each caller; call it after COMMIT."""
        for answer in self.answers:
            answer()


def run_batch(connection: Connection, jobs: Sequence[Job], now: float) -> Batch:
    """Run the jobs' units and the last step inside the open transaction."""
    outcomes, entries = run_units(connection, [job.work for job in jobs], now)
    try:
        head = append(connection, entries, now) if entries else None
    except (IntegrityError, sqlite3.IntegrityError) as error:
        raise BrokenInvariantError("a number of the change log is taken already") from error
    answers: list[Callable[[], None]] = []
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.error is not None:
            answers.append(_raiser(job, translate(outcome.error)))
        elif head is None or outcome.last_entry == 0:
            answers.append(_answerer(job, Committed(outcome.value, "", 0)))
        else:
            seq = head.seq - len(entries) + outcome.last_entry
            answers.append(_answerer(job, Committed(outcome.value, head.log_id, seq)))
    has_news = any(entry.kind != ChangeKind.AUDIT for entry in entries)
    if head is None:
        return Batch(answers, 0, 0, "", has_news=False)
    return Batch(answers, head.seq, head.seq - len(entries) + 1, head.log_id, has_news)


def claim(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs whose callers still wait; from here on they cannot be cancelled."""
    return [job for job in jobs if job.done.set_running_or_notify_cancel()]


def fail(jobs: Sequence[Job], error: BaseException, *, committing: bool = False) -> None:
    """Answer every caller of a batch that was rolled back as a whole."""
    for job in jobs:
        _raiser(job, translate(error, committing=committing))()


def closed() -> StorageError:
    """Build the error of a database that is not open."""
    return StorageError("the database is closed", code="storage_closed")


def busy() -> StorageError:
    """Build the error of a full queue."""
    return StorageError(f"{QUEUE_MAX} writes are waiting already", code="storage_busy", hint="slow down and try again")


def _gave_up(job: Job, seconds: float) -> StorageError:
    if job.done.cancel():
        return StorageError(
            f"the write did not begin within {seconds:g} s; nothing was changed",
            code="storage_busy",
            hint="try again later",
        )
    return StorageError(
        f"the write was not confirmed within {seconds:g} s; its outcome is unknown",
        code="storage_unknown",
        hint="read the state back before trying again",
    )


def _answerer(job: Job, committed: Committed[object]) -> Callable[[], None]:
    def answer() -> None:
        if not job.done.done():
            job.done.set_result(committed)

    return answer


def _raiser(job: Job, error: BaseException) -> Callable[[], None]:
    def answer() -> None:
        if not job.done.done():
            job.done.set_exception(error)

    return answer


def _typed(committed: Committed[object]) -> Committed[Any]:
    return cast("Committed[Any]", committed)
