"""Limits in Valkey or Redis: exact over all workers and nodes that share it.

    take -> waiting -> [ one round trip at a time: one script run for each workspace ] -> outcomes
                          | no answer within `answer_seconds`, or none that makes sense
                          v
                       lost: every rule's `on_store_error` decides, at once   <---.
                          `-- reconnect in the background, with backoff, and prove a write --> connected

Requests that arrive together, or while a round trip is under way, share the next one, so a verification costs one at
most and a hot limit costs few.  A store that does not answer costs the requests that were waiting 100 ms once, or what
`?socket_timeout=` in its address says; those that come later are not made to wait.  What a lost round trip has charged
stays charged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.kernel.secret import random_bytes
from keyturn.storage.valkey_link import Link, LinkError, Script, parse_address
from keyturn.storage.valkey_script import RELEASE, TAKE, Run, slot_key
from keyturn.verify.limits import without_store
from keyturn.verify.spending import LimitDemand, LimitOutcome
from keyturn.wire.policy import LimitRule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.kernel.secret import Secret
    from keyturn.storage.valkey_link import Address, Command

CONNECT_SECONDS: Final = 1.0
BACKOFF_SECONDS: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 2.0
BATCH_MAX: Final = 64
WAITING_MAX: Final = 10_000
STOP_SECONDS: Final = 1.0

_STOPPED: Final = "stopped"

_TAKE: Final = Script(TAKE)
_RELEASE: Final = Script(RELEASE)
_PROBE: Final = LimitDemand(LimitRule("probe", 1_000_000, 1), "~probe", "probe", 1)

_log = structlog.get_logger("keyturn.limits")


@dataclass(slots=True)
class LimitMeter:
    """What is counted, read when metrics are scraped; `batches[n]` counts batches of less than 2 ** n requests."""

    requests: int = 0
    round_trips: int = 0
    connections: int = 0
    losses: int = 0
    batches: list[int] = field(default_factory=lambda: [0] * (BATCH_MAX.bit_length() + 1))
    failures: dict[str, int] = field(default_factory=lambda: {"allow": 0, "deny": 0})


@dataclass(slots=True, eq=False)
class _Waiting:
    demands: Sequence[LimitDemand]
    answer: asyncio.Future[LimitOutcome]


class ValkeyLimiter:
    """A `Limiter` whose counters are in Valkey, for one event loop.

    `start` returns when it is connected, or could not be for `CONNECT_SECONDS`; it goes on trying until `stop`.
    """

    def __init__(self, address: Secret, *, time: Callable[[], float] | None = None) -> None:
        """Use the store at `address`; raises ConfigError when it is none.  `time` replaces the store's, for tests."""
        self.meter = LimitMeter()
        self.reason: str | None = "not connected yet"
        self._address = parse_address(address)
        self._time = time
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._tried = asyncio.Event()
        self._waiting: deque[_Waiting] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[int]] = set()

    @property
    def connected(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._link is not None

    async def start(self) -> None:
        """Connect, and stay connected."""
        self._connecting = asyncio.create_task(self._stay_connected(), name="valkey")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._tried.wait()

    async def stop(self) -> None:
        """Close the connection; what still waits is decided by its rules."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        if self._releases:
            await asyncio.wait(self._releases, timeout=STOP_SECONDS)
        self._lose(_STOPPED)
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome | None:
        """Answer from memory when there is nothing to ask, or nobody; else None."""
        del now
        if not demands:
            return LimitOutcome(admitted=True, reports=())
        if self._link is None or len(self._waiting) >= WAITING_MAX:
            return self._failed(demands)
        return None

    async def take(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """Charge all or nothing in the next round trip."""
        known = self.take_now(demands, now)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        waiting = _Waiting(demands, loop.create_future())
        self._waiting.append(waiting)
        if self._flushing is None:
            self._flushing = loop.create_task(self._flush(), name="valkey-flush")
        return await waiting.answer

    async def release(self, slots: Sequence[str]) -> int:
        """Give back slots in one round trip of its own; 0 when the store cannot be asked, and they expire later."""
        # In a task of its own: whoever asked may go away, and the next round trip must not find this one's reply.
        task = asyncio.create_task(self._release(slots), name="valkey-release")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return await asyncio.shield(task)

    async def _release(self, slots: Sequence[str]) -> int:
        link = self._link
        by_tag: dict[str, list[tuple[str, str]]] = {}
        for slot in slots:
            key = slot_key(slot)
            if key is not None:
                by_tag.setdefault(key[: key.index("}")], []).append((key, slot))
        if link is None or not by_tag:
            return 0
        commands = [
            _RELEASE.command([key for key, _ in pairs], [slot for _, slot in pairs]) for pairs in by_tag.values()
        ]
        try:
            replies = await self._exchange(link, commands)
        except LinkError as error:
            self._lose(str(error), link)
            return 0
        return sum(reply for reply in replies if isinstance(reply, int))

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
                await self._charge([one for one in batch if not one.answer.done()])
        finally:
            self._flushing = None

    async def _charge(self, batch: list[_Waiting]) -> None:
        link = self._link
        if link is None or not batch:
            self._give_up(batch)
            return
        try:
            for one, outcome in await self._ask(link, batch):
                self._answer(one, outcome)
        except LinkError as error:
            self._lose(str(error), link)
        except Exception as error:  # noqa: BLE001 -- whoever waits gets an answer, whatever went wrong
            _log.error("a batch of limits failed", exc_info=error)
            self._lose(type(error).__name__, link)
        finally:
            self._give_up(batch)

    async def _ask(self, link: Link, batch: list[_Waiting]) -> list[tuple[_Waiting, LimitOutcome]]:
        runs: dict[str, tuple[Run, list[_Waiting]]] = {}
        for one in batch:
            run, members = runs.setdefault(one.demands[0].workspace, (Run(), []))
            run.add(one.demands)
            members.append(one)
        at = None if self._time is None else self._time()
        commands = [_TAKE.command(run.keys, [run.argument(at)]) for run, _ in runs.values()]
        self.meter.requests += len(batch)
        self.meter.batches[len(batch).bit_length()] += 1
        replies = await self._exchange(link, commands)
        return [
            pair
            for (run, members), reply in zip(runs.values(), replies, strict=True)
            for pair in zip(members, run.outcomes(reply), strict=True)
        ]

    async def _exchange(self, link: Link, commands: list[Command]) -> list[object]:
        self.meter.round_trips += 1
        return await link.exchange(commands, self._address.answer_seconds)

    def _answer(self, one: _Waiting, outcome: LimitOutcome) -> None:
        if not one.answer.done():
            one.answer.set_result(outcome)
        elif outcome.slots:
            # Who asked has gone away, and will never give its slots back.
            task = asyncio.create_task(self._release(outcome.slots), name="valkey-release")
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    def _give_up(self, batch: Sequence[_Waiting]) -> None:
        for one in batch:
            if not one.answer.done():
                one.answer.set_result(self._failed(one.demands))

    def _failed(self, demands: Sequence[LimitDemand]) -> LimitOutcome:
        outcome = without_store(demands)
        self.meter.failures["allow" if outcome.admitted else "deny"] += 1
        return outcome

    def _lose(self, reason: str, link: Link | None = None) -> None:
        if self._link is None or (link is not None and link is not self._link):
            return
        self._link.close()
        self._link = None
        self.reason = reason
        self.meter.losses += 1
        self._give_up(self._waiting)
        self._waiting.clear()
        self._lost.set()
        if reason != _STOPPED:
            _log.warning("the store of limits is lost; each limit's on_store_error decides", reason=reason)

    async def _stay_connected(self) -> None:
        backoff = BACKOFF_SECONDS
        while True:
            try:
                self._link = await open_store(self._address)
            except LinkError as error:
                if self.reason != str(error):
                    _log.warning("the store of limits cannot be reached", reason=str(error))
                self.reason = str(error)
                self._tried.set()
                # Jitter, so that the nodes do not all come back in the same moment.
                await asyncio.sleep(backoff * (0.5 + random_bytes(1)[0] / 255))
                backoff = min(BACKOFF_SECONDS_MAX, backoff * 2)
                continue
            backoff = BACKOFF_SECONDS
            self.reason = None
            self.meter.connections += 1
            self._tried.set()
            _log.info("the store of limits answers")
            self._lost.clear()
            await self._lost.wait()
            await asyncio.sleep(BACKOFF_SECONDS * random_bytes(1)[0] / 255)


async def open_store(address: Address) -> Link:
    """Connect to a store and prove that it counts; raises LinkError."""
    link = await Link.open(address, [_TAKE, _RELEASE], CONNECT_SECONDS)
    try:
        run = Run()
        run.add([_PROBE])
        (reply,) = await link.exchange([_TAKE.command(run.keys, [run.argument(None)])], CONNECT_SECONDS)
        run.outcomes(reply)
    except BaseException:
        link.close()
        raise
    return link
