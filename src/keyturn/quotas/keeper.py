"""The keeper of balances on one node: spends from memory what it has leased, and leases more behind that.

    reserve_now    from the blocks that are held: no database, no lock, about a microsecond
    reserve        with an exchange where one is needed; exchanges of many accounts share a unit of work
    background     renews leases, fetches ahead, gives back what is idle; settles what ended processes left

A count is written to the counter file before a call is admitted, and the end of the lease is looked at after that, so
a pause in between admits nothing that is not counted.  For one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.errors import KeyturnError, StorageError
from keyturn.kernel.ids import new_id
from keyturn.quotas.calendar import span_of
from keyturn.quotas.counters import CounterFile, orphans
from keyturn.quotas.exchange import UNIT_BLOCKS, Ask, exchange, settle, sweep
from keyturn.quotas.holding import NO_CELL, Holding, numbers
from keyturn.quotas.model import account_id
from keyturn.storage import election
from keyturn.storage.rounds import quietly
from keyturn.verify.spending import Reservation
from keyturn.wire.verification import QuotaReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from keyturn.kernel.clock import Clock
    from keyturn.quotas.exchange import Answer, Swept
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction
    from keyturn.verify.spending import QuotaDemand
    from keyturn.wire.policy import QuotaRule

WAIT_SECONDS: Final = 4.0
"""How long a call waits for units before it is answered as unavailable."""
FAILED_SECONDS: Final = 0.5
TICK_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 30.0
UNUSED_SECONDS: Final = 1.0
RULE_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 5.0
ORPHANS_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
TRIES_MAX: Final = 100
ELECTION: Final = "quotas"
FAILING: Final = "quotas cannot be looked after"

_log = structlog.get_logger("keyturn")
_Charged = list[tuple[Holding, int]]


class QuotaKeeper:
    """See the module; a `Quotas` port (`keyturn.verify.spending`)."""

    def __init__(self, database: Database, clock: Clock, node: str, folder: Path) -> None:
        """Keep balances of `database` as `node`, with counters in `folder`; nothing is opened before `start`."""
        self._database = database
        self.clock = clock
        self._boottime = clock.boottime
        self._node = node
        self._folder = folder
        self._file: CounterFile | None = None
        self._holdings: dict[tuple[str, str, str], Holding] = {}
        self._pending: dict[int, Holding] = {}
        self._retired: dict[int, Holding] = {}
        self._exchanging: asyncio.Task[bool] | None = None
        self._exchanging_since = -math.inf
        self._failed_until = -math.inf
        self._swept_log = ""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.exchanges = 0
        self.failures = 0
        self.unavailable = 0
        self.settled = 0
        self.forfeited = 0

    # --- start and stop -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the counters, settle what ended processes left in the folder, and begin to renew.

        Raises StorageError when the folder cannot hold counters.
        """
        await self.open()
        self._tasks = [
            asyncio.create_task(self._run(), name="keyturn-quotas"),
            asyncio.create_task(self._look_after(), name="keyturn-quotas-sweep"),
        ]

    async def open(self) -> None:
        """Do what `start` does, without anything in the background."""
        self._file = CounterFile.create(self._folder, self._node)
        with contextlib.suppress(KeyturnError):  # the sweep tries again
            await self.settle_orphans()

    async def stop(self) -> None:
        """Give everything back and remove the counters; what cannot be given back stays for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._file is None:
            return
        for holding in list(self._holdings.values()):
            self._retire(holding)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while bool(self._retired) and await asyncio.shield(self._exchange()):
                    pass
        file, self._file = self._file, None
        file.close(remove=not self._retired)

    def abandon(self) -> None:
        """Let go of the counters as they are, as the end of a process does; for tests."""
        file, self._file = self._file, None
        if file is not None:
            file.close(remove=False)

    @property
    def held(self) -> int:
        """How many accounts units are held of."""
        return len(self._holdings)

    # --- the hot path -------------------------------------------------------------------------------------------------

    def reserve_now(self, demands: Sequence[QuotaDemand], now: float) -> Reservation | None:
        """See Quotas.reserve_now."""
        return self._spend(demands, now)

    async def reserve(self, demands: Sequence[QuotaDemand], now: float) -> Reservation:
        """See Quotas.reserve."""
        give_up = self._boottime() + WAIT_SECONDS
        for _ in range(TRIES_MAX):
            found = self._spend(demands, now)
            if found is not None:
                return found
            if self._file is None or not await self._obtain(self._lacking(demands, now), give_up):
                break
        found = self._spend(demands, now, lenient=True)
        if found is not None:
            return found
        self.unavailable += 1
        return Reservation(admitted=False, reports=self._reports(demands), unavailable=True)

    def release(self, reservation: Reservation) -> None:
        """See Quotas.release.  What was reported for the last time is spent for good."""
        self._undo([(holding, cost) for holding, cost in reservation.blocks if isinstance(holding, Holding)])

    def _spend(self, demands: Sequence[QuotaDemand], now: float, *, lenient: bool = False) -> Reservation | None:
        """Charge every demand or none; None when units have to be leased first.

        When it is `lenient`, demands in shadow mode that cannot be charged are left out.
        """
        file = self._file
        if file is None:
            return None
        holdings = self._holdings
        cells = file.cells
        charged: _Charged = []
        reports: list[QuotaReport] = []
        for demand in demands:
            rule = demand.rule
            cost = demand.cost
            holding = holdings.get((demand.workspace, demand.subject, rule.name))
            if (
                holding is None
                or not holding.starts_at <= now < holding.ends_at
                or (rule is not holding.rule and not self._follows(holding, rule))
                or (not holding.asked and not cost)
            ):
                if lenient and rule.mode == "shadow":
                    reports.append(QuotaReport(name=rule.name, remaining=0, shadow=True))
                    continue
                self._undo(charged)
                return None
            left = holding.remaining - cost
            if left < 0:
                shadow = rule.mode == "shadow"
                exceeded = left + holding.available < 0 and self._boottime() < holding.exhausted_until
                if exceeded and not shadow:
                    self._undo(charged)
                    return self._refusal(demands, holding, now)
                if exceeded or (shadow and lenient):
                    reports.append(_report(rule, holding, exceeded=exceeded))
                    continue
                self._undo(charged)
                return None
            if cost:
                holding.remaining = left
                holding.spent = spent = holding.spent + cost
                cells[holding.cell] = spent
                charged.append((holding, cost))
            reports.append(
                QuotaReport(
                    rule.name,
                    left + holding.available,
                    holding.resets_at,
                    False,
                    rule.mode == "shadow",
                )
            )
        at = self._boottime()
        for holding, _ in charged:
            if at >= holding.deadline:
                self._undo(charged)
                return None
            holding.used_at = at
            if holding.remaining < holding.low:
                self._fetch_ahead(holding)
        return Reservation(True, tuple(reports), 0.0, False, tuple(charged))

    def _undo(self, charged: Iterable[tuple[Holding, int]]) -> None:
        for holding, cost in charged:
            if not holding.reported and self._file is not None:
                holding.spent -= cost
                holding.remaining += cost
                self._file.cells[holding.cell] = holding.spent

    def _follows(self, holding: Holding, rule: QuotaRule) -> bool:
        """Tell whether a holding is one of this rule, though the rule is another object."""
        if numbers(rule) == holding.numbers:
            holding.rule = rule
            return True
        # Two rules of one name would make a node give back and lease with each call.
        return rule.period == holding.rule.period and self._boottime() < holding.rule_until

    def _refusal(self, demands: Sequence[QuotaDemand], refusing: Holding, now: float) -> Reservation:
        return Reservation(
            admitted=False,
            reports=self._reports(demands, refusing),
            retry_after_seconds=refusing.retry_after(now),
        )

    def _reports(self, demands: Sequence[QuotaDemand], refusing: Holding | None = None) -> tuple[QuotaReport, ...]:
        found = []
        for demand in demands:
            holding = self._holdings.get((demand.workspace, demand.subject, demand.rule.name))
            if holding is not None:
                found.append(_report(demand.rule, holding, exceeded=holding is refusing))
        return tuple(found)

    # --- getting units ------------------------------------------------------------------------------------------------

    def _lacking(self, demands: Sequence[QuotaDemand], now: float) -> list[Holding]:
        """Return the holdings that have to be asked for, each knowing what it needs."""
        found: list[Holding] = []
        at = self._boottime()
        for demand in demands:
            holding = self._holding_for(demand, now, at)
            if not holding.asked or holding.remaining < demand.cost or at >= holding.deadline:
                holding.needed = max(holding.needed, demand.cost)
                found.append(holding)
        return found

    def _holding_for(self, demand: QuotaDemand, now: float, at: float) -> Holding:
        key = (demand.workspace, demand.subject, demand.rule.name)
        holding = self._holdings.get(key)
        if holding is not None:
            in_time = holding.starts_at <= now < holding.ends_at
            if in_time and (demand.rule is holding.rule or self._follows(holding, demand.rule)):
                return holding
            self._retire(holding)
        span = span_of(demand.rule.period, now)
        account = account_id(*key, span.name)
        made = Holding(new_id("qbl", max(0.0, now)), account, key[:2], demand.rule, span)
        made.used_at = at
        made.rule_until = at + RULE_SECONDS
        self._holdings[key] = made
        return made

    async def _obtain(self, lacking: Sequence[Holding], give_up: float) -> bool:
        """Wait until an exchange has answered for all of them; False when that fails or lasts."""
        for holding in lacking:
            self._pending[id(holding)] = holding
        while any(id(holding) in self._pending for holding in lacking):
            at = self._boottime()
            running = self._exchanging
            if at < self._failed_until or at >= give_up:
                return False
            if running is not None and not running.done() and at > self._exchanging_since + WAIT_SECONDS:
                return False
            task = self._exchange()
            _, waiting = await asyncio.wait({task}, timeout=give_up - at)
            if waiting or not task.result():
                return False
        return True

    def _fetch_ahead(self, holding: Holding) -> None:
        if id(holding) not in self._pending:
            self._pending[id(holding)] = holding
            self._wake.set()

    def _retire(self, holding: Holding) -> None:
        """Spend a holding no more; it is reported for the last time with the next exchange."""
        if holding.retired:
            return
        holding.retired = True
        holding.deadline = -math.inf
        self._pending.pop(id(holding), None)
        if self._holdings.get(holding.key) is holding:
            del self._holdings[holding.key]
        if holding.known or holding.doubtful:
            self._retired[id(holding)] = holding

    # --- exchanges ----------------------------------------------------------------------------------------------------

    def _exchange(self) -> asyncio.Task[bool]:
        """Return the exchange that is under way, or begin one; True when it succeeded."""
        if self._exchanging is None or self._exchanging.done():
            self._exchanging_since = self._boottime()
            self._exchanging = asyncio.create_task(self._exchange_once(), name="keyturn-quotas-exchange")
        return self._exchanging

    async def _exchange_once(self) -> bool:
        # What is given back comes first, so that it can be leased again in the same unit.
        retired = list(self._retired.values())[: UNIT_BLOCKS // 2]
        holdings = [*retired, *list(self._pending.values())[: UNIT_BLOCKS - len(retired)]]
        if not holdings:
            return True
        for holding in holdings:
            self._pending.pop(id(holding), None)
            # Whatever becomes of the answer: the database may have given units.
            holding.doubtful = True
            holding.reported = holding.retired
        sent = self._boottime()
        asks = [holding.ask(sent) for holding in holdings]
        self.exchanges += 1
        try:
            committed = await self._database.write(partial(_exchange_unit, self._node, asks))
        except KeyturnError as error:
            self._exchange_failed(holdings, error)
            return False
        now = self._boottime()
        self._failed_until = -math.inf
        for holding, ask, answer in zip(holdings, asks, committed.value, strict=True):
            self._take_over(holding, ask, answer, sent, now)
        return True

    def _exchange_failed(self, holdings: Sequence[Holding], error: KeyturnError) -> None:
        self.failures += 1
        self._failed_until = self._boottime() + FAILED_SECONDS
        for holding in holdings:
            holding.renew_at = min(holding.renew_at, self._failed_until)
            holding.needed = 0
        _log.warning("quotas cannot be leased", reason=str(error))

    def _take_over(self, holding: Holding, ask: Ask, answer: Answer, sent: float, now: float) -> None:
        if ask.final:
            self._retired.pop(id(holding), None)
            if holding.cell != NO_CELL and self._file is not None:
                self._file.remove(holding.cell)
                holding.cell = NO_CELL
            return
        holding.asked = True
        if holding.retired:
            # It was retired while it was asked for: the units that came are given back with the next exchange.
            self._retired[id(holding)] = holding
        elif not answer.held:
            self._retire(holding)
        else:
            self._grow(holding, ask, answer, sent, now)

    def _grow(self, holding: Holding, ask: Ask, answer: Answer, sent: float, now: float) -> None:
        try:
            if answer.units and holding.cell == NO_CELL and self._file is not None:
                holding.cell = self._file.add(holding.block, answer.units)
            elif answer.units and self._file is not None:
                self._file.hold(holding.cell, answer.units)
        except StorageError as error:
            _log.warning("quotas cannot be counted", reason=str(error))
            self._retire(holding)
            return
        holding.take_over(ask, answer, sent, now)

    # --- in the background --------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Renew what is due, give back what is idle or past its period, and fetch what was asked for."""
        at, now = self._boottime(), self.clock.now()
        for holding in list(self._holdings.values()):
            if at > holding.used_at + IDLE_SECONDS or now >= holding.ends_at:
                self._retire(holding)
            elif at >= holding.renew_at:
                self._pending[id(holding)] = holding
        while bool(self._pending or self._retired) and await asyncio.shield(self._exchange()):
            pass

    def counts(self) -> dict[str, int]:
        """Return what was spent here of each block that this process holds, reported or not."""
        return {one.block: one.spent for one in (*self._holdings.values(), *self._retired.values())}

    async def recall(self, accounts: Iterable[str]) -> None:
        """Give back at once what is held of these accounts, so that the database knows to the unit."""
        wanted = set(accounts)
        for holding in [one for one in self._holdings.values() if one.account in wanted]:
            self._retire(holding)
        while any(one.account in wanted for one in self._retired.values()):
            if not await asyncio.shield(self._exchange()):
                return

    def refresh(self, accounts: Iterable[str]) -> None:
        """Ask again about these accounts at once: somebody has changed them, or lacks what is not used here."""
        wanted = set(accounts)
        at = self._boottime()
        for holding in [one for one in self._holdings.values() if one.account in wanted]:
            holding.exhausted_until = -math.inf
            if holding.remaining and at > holding.used_at + UNUSED_SECONDS:
                self._retire(holding)
                self._wake.set()
            else:
                self._fetch_ahead(holding)

    def renew(self) -> None:
        """Ask again about everything at once: the database may not be the one that leased it."""
        for holding in self._holdings.values():
            holding.renew_at = -math.inf
        self._wake.set()

    async def settle_orphans(self) -> int:
        """Settle what processes that have ended left in the folder; return how many files.  Raises StorageError."""
        settled = 0
        for orphan in orphans(self._folder):
            done = False
            try:
                if orphan.left.believed:
                    after: str | None = ""
                    while after is not None:
                        after = (
                            await self._database.write(
                                partial(_settle_unit, orphan.left.node, orphan.left.spent, after)
                            )
                        ).value
                else:
                    _log.warning("counters are not believed; what they count is stranded", node=orphan.left.node)
                done = True
                settled += 1
            finally:
                orphan.close(remove=done)
        self.settled += settled
        return settled

    async def sweep(self) -> bool:
        """Forfeit and refill what is due, if this node is elected for it; True when there is more to do."""
        swept = (await self._database.write(partial(_sweep_unit, self._node, self._swept_log))).value
        if swept is None:
            return False
        if not swept.more:
            self._swept_log = swept.log_id
        self.forfeited += swept.forfeited
        if swept.forfeited:
            _log.warning("quota blocks were forfeited", blocks=swept.forfeited)
        return swept.more

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await quietly(FAILING, self.tick)
            if self._boottime() < self._failed_until:
                await asyncio.sleep(FAILED_SECONDS)

    async def _look_after(self) -> None:
        orphans_at = self._boottime() + ORPHANS_SECONDS
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            while await quietly(FAILING, self.sweep):
                pass
            if self._boottime() >= orphans_at:
                orphans_at = self._boottime() + ORPHANS_SECONDS
                await quietly(FAILING, self.settle_orphans)


def _exchange_unit(node: str, asks: list[Ask], transaction: Transaction) -> list[Answer]:
    return exchange(transaction, node, asks)


def _sweep_unit(node: str, swept_log: str, transaction: Transaction) -> Swept | None:
    if not election.stand(transaction.connection, ELECTION, node, 4 * SWEEP_SECONDS, transaction.now):
        return None
    return sweep(transaction, swept_log)


def _settle_unit(node: str, spent: dict[str, int], after: str, transaction: Transaction) -> str | None:
    return settle(transaction, node, spent, after)


def _report(rule: QuotaRule, holding: Holding, *, exceeded: bool) -> QuotaReport:
    return QuotaReport(
        name=rule.name,
        remaining=max(0, holding.remaining) + holding.available,
        resets_at=holding.resets_at,
        exceeded=exceeded,
        shadow=rule.mode == "shadow",
    )
