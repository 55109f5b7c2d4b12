"""Spending: what an admitted verification charges to limits and quotas, and who keeps those counters.

    decide -> Allowed --demands--> Quotas.reserve_now -> Limiter.take_now -> admitted
                                        | None               | None      to be awaited: `reserve`, `take`
                                        ^                    |
                                        `---- release -------'  refused by a limit: the reservation is given back

Both ports have a call that answers at once, from memory, and one that may be awaited.  Limits are all or nothing:
when one of them refuses, none is charged.  A demand in shadow mode is charged and reported, and never refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

import msgspec

from keyturn.wire.policy import LimitRule, QuotaRule
from keyturn.wire.verification import LimitReport, QuotaReport

if TYPE_CHECKING:
    from collections.abc import Sequence


@final
class LimitDemand:
    """A cost to charge to a limit.

    `counter` names who shares it, without the workspace: `key/<key id>/<rule>`, `owner/<owner>/<rule>`,
    `plan/<plan id>/<rule>`, `ip/<keyspace id>/<address>/<rule>`.  It outlives a change of the rule's numbers.
    `found` is for who keeps the counters: where this one was, when the demand was last charged.
    """

    __slots__ = ("cost", "counter", "found", "rule", "workspace")

    def __init__(self, rule: LimitRule, workspace: str, counter: str, cost: int) -> None:
        """Ask for `cost` units."""
        self.rule = rule
        self.workspace = workspace
        self.counter = counter
        self.cost = cost
        self.found: object = None


class LimitOutcome(msgspec.Struct, frozen=True, gc=False):
    """Whether all of them admit, and how each stands; `slots` are held until they are given back or expire.

    `store_failed` says that the counters could not be asked and each rule's `on_store_error` decided.
    """

    admitted: bool
    reports: tuple[LimitReport, ...]
    retry_after_seconds: float = 0.0
    slots: tuple[str, ...] = ()
    store_failed: bool = False


class Limiter(Protocol):
    """Keeps the counters of limits.  `now` is epoch seconds."""

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome | None:
        """Charge all or nothing from memory; None when `take` has to be awaited.  Never raises."""
        ...

    async def take(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """Charge all or nothing; a store that cannot be asked is answered by each rule, never by an exception."""
        ...

    async def release(self, slots: Sequence[str]) -> int:
        """Give back slots of concurrency limits; return how many were still held.  Unknown ones change nothing."""
        ...


class QuotaDemand(msgspec.Struct, frozen=True, gc=False):
    """A cost to charge to a quota; `subject` is `key/<key id>` or `owner/<owner>`."""

    rule: QuotaRule
    workspace: str
    subject: str
    cost: int


class Reservation(msgspec.Struct, frozen=True):
    """What was spent of quotas, all or nothing; give it to `release` when the call is not admitted after all.

    `retry_after_seconds` is when the period ends, 0 when waiting does not help.  `blocks` is the keeper's own.
    """

    admitted: bool
    reports: tuple[QuotaReport, ...]
    retry_after_seconds: float = 0.0
    unavailable: bool = False
    blocks: tuple[tuple[object, int], ...] = ()


class Quotas(Protocol):
    """Keeps balances.  Never admits more than a balance holds."""

    def reserve_now(self, demands: Sequence[QuotaDemand], now: float) -> Reservation | None:
        """Spend all or nothing from blocks that are held; None when `reserve` has to be awaited.  Never raises."""
        ...

    async def reserve(self, demands: Sequence[QuotaDemand], now: float) -> Reservation:
        """Spend all or nothing, leasing more where needed; `unavailable` when the balance cannot be asked."""
        ...

    def release(self, reservation: Reservation) -> None:
        """Give back what an admitted reservation has spent."""
        ...
