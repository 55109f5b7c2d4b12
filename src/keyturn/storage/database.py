"""The port: one database, read and written through closures, whichever engine is below.

`write` queues a unit of work; one batch at a time is open per worker, so units that arrive together share
a commit.  It returns after the commit is durable.  `read` runs a closure in a read-only transaction.
Foreign exceptions are translated here once; nothing above sees a driver's error.
"""

from __future__ import annotations

import concurrent.futures
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from keyturn.storage.change_log import append
from keyturn.storage.faults import translate
from keyturn.storage.transaction import Committed, Transaction, run_units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from keyturn.kernel.clock import Clock
    from keyturn.storage.change_log import Head
    from keyturn.storage.nodes import Confirmation

T = TypeVar("T")

BATCH_MAX = 64
QUEUE_MAX = 2048
WRITE_WAIT_SECONDS = 15.0


@dataclass(slots=True)
class Job:
    """A queued unit of work and the future its caller waits on."""

    work: Callable[[Transaction], object]
    done: concurrent.futures.Future[Committed[object]] = field(default_factory=concurrent.futures.Future)


class Database(ABC):
    """The system of record.  Open it before use; `close` finishes queued work first."""

    dialect: str

    def __init__(self, clock: Clock) -> None:
        """Hold the clock that stamps units of work."""
        self.clock = clock
        self._listeners: list[Callable[[int], None]] = []

    @abstractmethod
    async def open(self) -> None:
        """Connect; raises StorageError naming what to do when the database is out of reach."""

    @abstractmethod
    async def close(self) -> None:
        """Finish queued units, then let go of every connection."""

    @abstractmethod
    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        """Run a unit of work and return once it is durable.

        Raises whatever the unit raised (nothing of it is kept), or StorageError when the queue is full, the
        database refuses, or no answer came within `WRITE_WAIT_SECONDS` (the outcome is then unknown).
        """

    @abstractmethod
    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a closure in a read-only transaction that sees one consistent state."""

    @abstractmethod
    async def head(self) -> Head:
        """Read the head row, as cheaply as the engine allows."""

    @abstractmethod
    def confirm(self, node: str, log_id: str, applied: int) -> Confirmation:
        """Write a node's *confirm* and return what it proves.  Blocking; called from the confirming thread."""

    @abstractmethod
    def close_confirm(self) -> None:
        """Let go of what `confirm` holds; called from the confirming thread when it ends."""

    def on_commit(self, listener: Callable[[int], None]) -> None:
        """Call `listener(seq)` after each numbered commit of this process; it may run in any thread."""
        self._listeners.append(listener)

    def _announce(self, seq: int) -> None:
        for listener in self._listeners:
            listener(seq)


def run_batch(connection: Connection, jobs: Sequence[Job], now: float) -> list[Callable[[], None]]:
    """Run the jobs' units and the last step inside the open transaction.

    Returns what to call after COMMIT to answer each caller; nothing is answered before the commit is durable.
    """
    outcomes, entries = run_units(connection, [job.work for job in jobs], now)
    head = append(connection, entries, now) if entries else None
    answers: list[Callable[[], None]] = []
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.error is not None:
            answers.append(_raiser(job, outcome.error))
        elif head is None or outcome.last_entry == 0:
            answers.append(_answerer(job, Committed(outcome.value, "", 0)))
        else:
            seq = head.seq - len(entries) + outcome.last_entry
            answers.append(_answerer(job, Committed(outcome.value, head.log_id, seq)))
    return answers


def fail(jobs: Sequence[Job], error: BaseException) -> None:
    """Answer every caller of a batch that was rolled back as a whole."""
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(translate(error))


def _answerer(job: Job, committed: Committed[object]) -> Callable[[], None]:
    def answer() -> None:
        if not job.done.done():
            job.done.set_result(committed)

    return answer


def _raiser(job: Job, error: BaseException) -> Callable[[], None]:
    def answer() -> None:
        if not job.done.done():
            job.done.set_exception(translate(error))

    return answer


def committed_value(committed: Committed[object]) -> Committed[Any]:
    """Give the value its static type back."""
    return cast("Committed[Any]", committed)
