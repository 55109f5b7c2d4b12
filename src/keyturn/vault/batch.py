"""The queue of reads: what waits at one time shares one transaction, and so one fsync.

    read --> waiting --> unit of work (one at a time) --commit--> answered
               |              |
               `--------------`--> not on record after STALL_SECONDS: refused, 503, and no value

While one batch is being committed the next one gathers, so a batch is as large as the load makes it.  Nobody waits for
longer than the bound, whatever the database does; who has given up is left out of a batch that has not begun, and
gets nothing of one that has.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

from keyturn.errors import KeyturnError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.access.door import Door
    from keyturn.vault.batch_state import BatchState
    from keyturn.vault.batch_unit import Answers, Ask, BatchUnit, Opened
    from keyturn.vault.consumers import Consumers

BATCH_MAX: Final = 64
WAITING_MAX: Final = 4096
STALL_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.25


class ReadMeter:
    """Counts reads of secrets, and how they shared commits."""

    __slots__ = ("batches", "outcomes", "sizes", "stalls")

    def __init__(self) -> None:
        """Start at zero."""
        self.outcomes: defaultdict[str, int] = defaultdict(int)
        self.sizes: defaultdict[int, int] = defaultdict(int)
        self.batches = 0
        self.stalls = 0


class ReadQueue:
    """Takes reads one by one and decides them in batches; for one event loop."""

    def __init__(
        self,
        door: Door,
        unit: BatchUnit,
        state: BatchState,
        consumers: Consumers,
        *,
        stall_seconds: float = STALL_SECONDS,
        received: Callable[[], None] = lambda: None,
    ) -> None:
        """Commit through the door's database; `received` is told after each batch that let out a value."""
        self._door = door
        self._unit = unit
        self._state = state
        self._consumers = consumers
        self._stall_seconds = stall_seconds
        self._received = received
        self._waiting: deque[Ask] = deque()
        self._running: list[Ask] = []
        self._worker: asyncio.Task[None] | None = None
        self._looking = False
        self.meter = ReadMeter()

    async def decide(self, ask: Ask) -> Opened:
        """Return what was asked for once the read is on record; raises the refusal, or StorageError."""
        if len(self._waiting) >= WAITING_MAX:
            self.meter.stalls += 1
            raise _stalled(f"{WAITING_MAX} reads wait already to be put on record")
        self._waiting.append(ask)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="secret-reads")
        if not self._looking:
            self._look_later()
        return await ask.done

    async def close(self) -> None:
        """Wait for the batch that is being committed, and refuse what waits."""
        while self._waiting:
            _refuse(self._waiting.popleft(), StorageError("the server stops", code="storage_closed"))
        if self._worker is not None:
            await asyncio.wait((self._worker,), timeout=self._stall_seconds)

    async def _work(self) -> None:
        try:
            while self._waiting:
                asks: list[Ask] = []
                while self._waiting and len(asks) < BATCH_MAX:
                    ask = self._waiting.popleft()
                    if not ask.done.done():
                        asks.append(ask)
                if asks:
                    self._running = asks
                    await self._commit(asks)
                    self._running = []
        finally:
            self._worker = None

    async def _commit(self, asks: list[Ask]) -> None:
        try:
            committed = await self._door.database.write(lambda transaction: self._unit.run(transaction, asks))
        except KeyturnError as error:
            self.meter.outcomes["error"] += len(asks)
            for ask in asks:
                _refuse(ask, error)
            return
        except Exception as error:  # noqa: BLE001 -- our own bug: handed to who met it, and to nobody else
            if len(asks) == 1:
                self.meter.outcomes["error"] += 1
                _refuse(asks[0], error)
                return
            for ask in asks:
                await self._commit([ask])
            return
        except BaseException:
            for ask in asks:
                _refuse(ask, _stalled("the server stops"))
            raise
        self._state.confirm()
        self._hand_out(committed.value)

    def _hand_out(self, found: Answers) -> None:
        self._consumers.committed(found.reads)
        meter = self.meter
        meter.batches += 1
        meter.sizes[len(found.answers)] += 1
        for answer in found.answers:
            meter.outcomes[answer.outcome] += 1
            done = answer.ask.done
            if answer.outcome == "unauthenticated":
                self._door.count_unauthenticated(answer.ask.credentials)
            if done.done():
                continue
            if answer.opened is not None:
                done.set_result(answer.opened)
            elif answer.error is not None:
                done.set_exception(answer.error)
        if found.reads:
            self._received()

    def _look_later(self) -> None:
        self._looking = True
        asyncio.get_running_loop().call_later(min(LOOK_SECONDS, self._stall_seconds), self._look)

    def _look(self) -> None:
        """Refuse what has waited for too long: one look at all of them takes the place of a timer for each."""
        self._looking = False
        overdue = asyncio.get_running_loop().time() - self._stall_seconds
        for ask in (*self._running, *self._waiting):
            if ask.asked_at < overdue and not ask.done.done():
                self.meter.stalls += 1
                _refuse(ask, _stalled(f"the read could not be put on record within {self._stall_seconds:g} s"))
        while self._waiting and self._waiting[0].done.done():
            self._waiting.popleft()
        if self._running or self._waiting:
            self._look_later()


def _refuse(ask: Ask, error: BaseException) -> None:
    if not ask.done.done():
        ask.done.set_exception(error)


def _stalled(message: str) -> StorageError:
    return StorageError(
        f"{message}; no value was given", code="audit_stalled", hint="try again; `keyturn doctor` names the cause"
    )
