"""Limits in process memory: GCRA for rates, slots for calls in flight.

    state of a rate      backlog: seconds until the counter is whole again, as of `at`
    a unit costs         window / limit seconds of backlog
    admitted             when backlog + cost fits into burst * window / limit
    a slot               held until it is given back, or for `window_seconds`

Backlog + `at` is GCRA's theoretical arrival time.  They are kept apart because the sum, in epoch seconds, would round
away what a unit of a fast limit costs.  A counter is its workspace, its name and its window: a changed `limit` or
`burst` keeps what was used, a changed window begins anew.

A request is charged in one step, all or nothing; a limit in shadow mode is charged when it would admit, and reported.
A concurrency limit counts calls: whatever it costs, a call takes one slot, and a cost of 0 takes none.

Time that goes back gives nothing away: it stands still until it has caught up, or, after a step of more than
`STEP_SECONDS`, goes on from where it is.

Memory is bounded.  Counters that are whole and were not used for `IDLE_SECONDS` are forgotten, a few with every new
one; from half of `capacity` on, those that were just used as well.  When `capacity` of them are not whole, a new one
cannot be kept, and its rule's `on_store_error` decides, as it does for every store that cannot answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Final, final

from keyturn.kernel.secret import random_base62
from keyturn.verify.spending import LimitDemand, LimitOutcome
from keyturn.wire.verification import LimitReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.wire.policy import LimitRule

CAPACITY: Final = 500_000
STEP_SECONDS: Final = 2.0
SLOT_RETRY_SECONDS: Final = 1.0
"""When to ask again for a slot at the latest: calls mostly end long before their slots expire."""
STORE_RETRY_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 10.0
"""For how long a whole counter is kept all the same: making it anew costs more than the rest of a verification."""

_SWEPT_PER_NEW: Final = 4
_SWEPT_WHEN_FULL: Final = 64
_RATES_MAX: Final = 4096
_ROUNDING_SECONDS: Final = 1e-6
_ROUNDING_UNITS: Final = 1e-3

_Key = tuple[str, str, int]


def new_slot() -> str:
    """Return the name of a slot that nobody can guess."""
    return "slot_" + random_base62(22)


def unit_seconds(rule: LimitRule) -> float:
    """Return what a unit costs; a limit of none costs as one of one, and its burst of none admits nothing."""
    return max(1, rule.window_seconds) / max(1, rule.limit)


def burst_of(rule: LimitRule) -> int:
    """Return how many units may be used at once."""
    return rule.limit if rule.burst is None else rule.burst


def slack_seconds(unit_seconds: float) -> float:
    """Return how much too early a call may be for the sake of rounding: a microsecond, or a thousandth of a unit."""
    return min(_ROUNDING_SECONDS, unit_seconds * _ROUNDING_UNITS)


def without_store(demands: Sequence[LimitDemand]) -> LimitOutcome:
    """Let each rule say what happens when its counter cannot be asked; the ones that refuse are reported."""
    refusing = tuple(
        LimitReport(demand.rule.name, demand.rule.limit, demand.rule.window_seconds, 0, 0.0, exceeded=True)
        for demand in demands
        if demand.cost > 0 and demand.rule.mode != "shadow" and demand.rule.on_store_error != "allow"
    )
    return LimitOutcome(not refusing, refusing, STORE_RETRY_SECONDS if refusing else 0.0, (), store_failed=True)


@final
class _Rate:
    """The numbers of a rule, shared by all its counters."""

    __slots__ = ("burst", "ceiling", "enforced", "limit", "name", "per_second", "unit", "window_seconds")

    def __init__(self, rule: LimitRule) -> None:
        self.name = rule.name
        self.limit = rule.limit
        self.window_seconds = rule.window_seconds
        self.enforced = rule.mode != "shadow"
        self.unit = unit_seconds(rule)
        self.per_second = max(1, rule.limit) / max(1, rule.window_seconds)
        self.burst = burst_of(rule)
        self.ceiling = self.burst * self.unit + slack_seconds(self.unit)


_rate = lru_cache(maxsize=_RATES_MAX)(_Rate)


@final
class _Counter:
    """What is remembered of one counter, and the rule that it was last used with."""

    __slots__ = ("at", "backlog", "held", "keeper", "key", "rate", "rule")

    def __init__(self, key: _Key, rule: LimitRule, now: float, keeper: LocalLimiter | None = None) -> None:
        self.key = key
        self.keeper = keeper
        """Who remembers it; None once it is forgotten, and what is charged to it then would be lost."""
        self.backlog = 0.0
        self.at = now
        self.held: OrderedDict[str, float] | None = OrderedDict() if rule.kind == "concurrency" else None
        self.use(rule)

    def use(self, rule: LimitRule) -> None:
        """Take over the numbers of a rule."""
        self.rule = rule
        self.rate = _rate(rule)
        if self.held is None and rule.kind == "concurrency":
            self.held = OrderedDict()
        elif self.held is not None and rule.kind != "concurrency":
            self.held = None

    def is_whole(self, now: float) -> bool:
        """Tell whether nothing would change if it were forgotten."""
        if self.held is not None:
            return not self.held or next(reversed(self.held.values())) <= now
        if self.at - now > STEP_SECONDS:
            self.at = now
        return self.backlog_at(now) <= 0.0

    def backlog_at(self, now: float) -> float:
        """Return what is left of the backlog."""
        elapsed = now - self.at
        return self.backlog if elapsed <= 0.0 else max(0.0, self.backlog - elapsed)

    def purge(self, now: float, slots: dict[str, _Counter]) -> OrderedDict[str, float]:
        """Forget slots that have expired; return those that are held, the first to expire first."""
        held = OrderedDict() if self.held is None else self.held
        while held:
            slot, expiry = next(iter(held.items()))
            if expiry > now:
                break
            del held[slot]
            slots.pop(slot, None)
        latest = now + self.rule.window_seconds
        if held and next(iter(held.values())) > latest:  # time has gone back
            held.update(dict.fromkeys(held, latest))
        return held


class LocalLimiter:
    """A `Limiter` in the memory of one process, for one event loop or one thread.

    Exact for what this process admits, and never to be awaited.  `failures` counts the requests for which there
    was no room, by what their rules decided.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Remember at most `capacity` counters, and as many slots."""
        self._capacity = capacity
        self._counters: dict[_Key, _Counter] = {}
        self._ring: list[_Counter] = []
        self._hand = 0
        self._slots: dict[str, _Counter] = {}
        self.failures = {"allow": 0, "deny": 0}

    def __len__(self) -> int:
        """Return how many counters are remembered."""
        return len(self._counters)

    @property
    def slots_held(self) -> int:
        """How many slots are held, or have expired and are not yet forgotten."""
        return len(self._slots)

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """Charge all or nothing; never raises and never has to be awaited."""
        done: list[tuple[_Counter, float, float]] = []
        reports: list[LimitReport] = []
        slots: list[str] = []
        for demand in demands:
            rule = demand.rule
            counter = demand.found
            if not isinstance(counter, _Counter) or counter.keeper is not self or counter.rule is not rule:
                counter = self._find(demand, now)
                if counter is None:
                    self._undo(done, slots)
                    return self._no_room(demands)
            if counter.held is not None:
                if len(self._slots) >= self._capacity and demand.cost and not self._has_slots(counter, now):
                    self._undo(done, slots)
                    return self._no_room(demands)
                if not self._take_slot(counter, demand, now, reports, slots):
                    self._undo(done, slots)
                    return self._refused(demands, now)
                continue
            backlog = before = counter.backlog
            at = counter.at
            elapsed = now - at
            done.append((counter, before, at))
            if elapsed > 0.0:
                backlog = before - elapsed if before > elapsed else 0.0
                counter.at = now
            elif elapsed < -STEP_SECONDS:
                counter.at = now
            rate = counter.rate
            after = backlog + demand.cost * rate.unit
            if after <= rate.ceiling:
                counter.backlog = after
                left = int((rate.ceiling - after) * rate.per_second)
                reports.append(
                    LimitReport(rate.name, rate.limit, rate.window_seconds, left, after, False, not rate.enforced)
                )
            elif not demand.cost:
                counter.backlog = backlog
                reports.append(_rate_report(counter, backlog, exceeded=False))
            elif rate.enforced:
                self._undo(done, slots)
                return self._refused(demands, now)
            else:
                counter.backlog = backlog
                reports.append(_rate_report(counter, backlog, exceeded=True))
        return LimitOutcome(True, tuple(reports), 0.0, tuple(slots) if slots else ())

    async def take(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """Charge all or nothing."""
        return self.take_now(demands, now)

    async def release(self, slots: Sequence[str]) -> int:
        """Give back slots; return how many were still held."""
        return self.release_now(slots)

    def release_now(self, slots: Sequence[str]) -> int:
        """Give back slots, without an event loop."""
        return sum(self._drop(slot) for slot in slots)

    def _take_slot(
        self, counter: _Counter, demand: LimitDemand, now: float, reports: list[LimitReport], slots: list[str]
    ) -> bool:
        """Take a slot and report; False when an enforced limit refuses."""
        rule = demand.rule
        held = counter.purge(now, self._slots)
        over = demand.cost > 0 and len(held) >= rule.limit
        if over and counter.rate.enforced:
            return False
        if demand.cost > 0 and not over:
            slot = new_slot()
            held[slot] = now + rule.window_seconds
            self._slots[slot] = counter
            slots.append(slot)
        reports.append(_slot_report(counter, held, now, exceeded=over))
        return True

    def _has_slots(self, counter: _Counter, now: float) -> bool:
        """Look for slots that have expired; when this counter has none, the next call gains from those of others."""
        counter.purge(now, self._slots)
        if len(self._slots) < self._capacity:
            return True
        self._sweep(now, _SWEPT_WHEN_FULL)
        return False

    def _drop(self, slot: str) -> int:
        counter = self._slots.pop(slot, None)
        if counter is None or counter.held is None:
            return 0
        return 0 if counter.held.pop(slot, None) is None else 1

    def _undo(self, done: list[tuple[_Counter, float, float]], slots: list[str]) -> None:
        for counter, backlog, at in reversed(done):
            counter.backlog = backlog
            counter.at = at
        for slot in slots:
            self._drop(slot)

    def _refused(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """Report how everything stands, and how long until all of it would be admitted; charges nothing."""
        reports: list[LimitReport] = []
        asked: dict[_Key, float] = {}
        wait = 0.0
        helps = True
        for demand in demands:
            key = (demand.workspace, demand.counter, demand.rule.window_seconds)
            found = self._find(demand, now)
            counter = _Counter(key, demand.rule, now) if found is None else found
            if counter.held is not None:
                held = counter.purge(now, self._slots)
                over = demand.cost > 0 and len(held) + asked.get(key, 0) >= demand.rule.limit
                asked[key] = asked.get(key, 0) + (1 if demand.cost else 0)
                if over and counter.rate.enforced:
                    wait = max(wait, min(SLOT_RETRY_SECONDS, next(iter(held.values()), now) - now))
                reports.append(_slot_report(counter, held, now, exceeded=over))
                continue
            if counter.at - now > STEP_SECONDS:
                counter.at = now
            backlog = counter.backlog_at(now)
            after = backlog + asked.get(key, 0.0) + demand.cost * counter.rate.unit
            over = demand.cost > 0 and after > counter.rate.ceiling
            asked[key] = after - backlog
            if over and counter.rate.enforced:
                helps = helps and after - backlog <= counter.rate.ceiling
                wait = max(wait, after - counter.rate.burst * counter.rate.unit + max(0.0, counter.at - now))
            reports.append(_rate_report(counter, backlog, exceeded=over))
        return LimitOutcome(False, tuple(reports), wait if helps else 0.0)

    def _no_room(self, demands: Sequence[LimitDemand]) -> LimitOutcome:
        outcome = without_store(demands)
        self.failures["allow" if outcome.admitted else "deny"] += 1
        return outcome

    def _find(self, demand: LimitDemand, now: float) -> _Counter | None:
        """Return the counter of a demand with the numbers of its rule; None when there is no room for a new one."""
        rule = demand.rule
        key = (demand.workspace, demand.counter, rule.window_seconds)
        found = self._counters.get(key)
        if found is not None:
            demand.found = found
            if found.rule != rule:
                if found.held and rule.kind != "concurrency":
                    self._undo([], [*found.held])
                found.use(rule)
            found.rule = rule
            return found
        self._sweep(now, _SWEPT_PER_NEW)
        if len(self._counters) >= self._capacity:
            self._sweep(now, _SWEPT_WHEN_FULL)
        if len(self._counters) >= self._capacity:
            return None
        counter = demand.found = self._counters[key] = _Counter(key, rule, now, self)
        self._ring.append(counter)
        return counter

    def _sweep(self, now: float, steps: int) -> None:
        """Look at the next counters in turn and forget those that are whole."""
        ring = self._ring
        crowded = len(ring) > self._capacity // 2
        idle_since = now - IDLE_SECONDS
        for _ in range(min(steps, len(ring))):
            if self._hand >= len(ring):
                self._hand = 0
            counter = ring[self._hand]
            if (crowded or counter.at <= idle_since) and counter.is_whole(now):
                for slot in counter.held or ():
                    self._slots.pop(slot, None)
                del self._counters[counter.key]
                counter.keeper = None
                ring[self._hand] = ring[-1]
                ring.pop()
            else:
                self._hand += 1


@final
class ThreadedLimiter(LocalLimiter):
    """A `LocalLimiter` that any number of threads may share, as in a WSGI application."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Remember at most `capacity` counters, and as many slots."""
        super().__init__(capacity)
        self._lock = threading.Lock()

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """Charge all or nothing; other threads wait for some microseconds."""
        with self._lock:
            return super().take_now(demands, now)

    def release_now(self, slots: Sequence[str]) -> int:
        """Give back slots; other threads wait for some microseconds."""
        with self._lock:
            return super().release_now(slots)


def _rate_report(counter: _Counter, backlog: float, *, exceeded: bool) -> LimitReport:
    rule = counter.rule
    left = max(0, int((counter.rate.ceiling - backlog) * counter.rate.per_second))
    return LimitReport(
        rule.name, rule.limit, rule.window_seconds, left, backlog, exceeded=exceeded, shadow=not counter.rate.enforced
    )


def _slot_report(counter: _Counter, held: OrderedDict[str, float], now: float, *, exceeded: bool) -> LimitReport:
    rule = counter.rule
    left = max(0, rule.limit - len(held))
    reset = next(reversed(held.values()), now) - now
    return LimitReport(
        rule.name, rule.limit, rule.window_seconds, left, reset, exceeded=exceeded, shadow=not counter.rate.enforced
    )
