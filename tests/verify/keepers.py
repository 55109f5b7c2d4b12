"""Keepers of limits and quotas for tests: exact, in memory, and told when to wait or to fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from keyturn.verify.limits import LocalLimiter
from keyturn.verify.spending import LimitDemand, LimitOutcome, QuotaDemand, Reservation
from keyturn.verify.terms import SHADOW
from keyturn.wire.verification import QuotaReport


class Balances:
    """A `Quotas` whose balances begin with each rule's amount; `waits` makes every call one to be awaited."""

    def __init__(self, *, waits: bool = False) -> None:
        """Begin with nothing spent."""
        self.waits = waits
        self.away = False
        self.spent: dict[tuple[str, str, str], int] = {}
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def reserve_now(self, demands: Sequence[QuotaDemand], now: float) -> Reservation | None:
        """See Quotas."""
        assert now > 0
        return None if self.waits else self._reserve(demands)

    async def reserve(self, demands: Sequence[QuotaDemand], now: float) -> Reservation:
        """See Quotas."""
        assert now > 0
        if self.meanwhile is not None:
            await self.meanwhile()
        return self._reserve(demands)

    def release(self, reservation: Reservation) -> None:
        """See Quotas."""
        for account, cost in reservation.blocks:
            assert isinstance(account, tuple)
            self.spent[account] -= cost
            assert self.spent[account] >= 0

    @property
    def total(self) -> int:
        """What is spent of all balances."""
        return sum(self.spent.values())

    def _reserve(self, demands: Sequence[QuotaDemand]) -> Reservation:
        if self.away:
            return Reservation(admitted=False, reports=(), unavailable=True)
        reports, blocks, refused = [], [], False
        for demand in demands:
            account = (demand.workspace, demand.subject, demand.rule.name)
            left = demand.rule.amount - self.spent.get(account, 0)
            over = demand.cost > left
            shadow = demand.rule.mode == SHADOW
            refused = refused or (over and not shadow)
            reports.append(QuotaReport(demand.rule.name, left, exceeded=over, shadow=shadow))
            if not over:
                blocks.append((account, demand.cost))
        if refused:
            return Reservation(admitted=False, reports=tuple(reports), retry_after_seconds=60.0)
        for account, cost in blocks:
            self.spent[account] = self.spent.get(account, 0) + cost
        return Reservation(admitted=True, reports=tuple(reports), blocks=tuple(blocks))


class SlowLimiter:
    """A `Limiter` that has to be awaited; `meanwhile` happens while it is."""

    def __init__(self) -> None:
        """Begin empty."""
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.given_back: list[str] = []
        self._counters = LocalLimiter()

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> None:
        """See Limiter."""
        assert now > 0
        assert demands

    async def take(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """See Limiter."""
        if self.meanwhile is not None:
            await self.meanwhile()
        return self._counters.take_now(demands, now)

    async def release(self, slots: Sequence[str]) -> int:
        """See Limiter."""
        self.given_back.extend(slots)
        return self._counters.release_now(slots)
