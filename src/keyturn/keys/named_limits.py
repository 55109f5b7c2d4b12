"""Limits on anything that a caller can name, apart from any key: the same counters, one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.access.caller import Resource
from keyturn.verify.spending import LimitDemand
from keyturn.wire.actions import Action
from keyturn.wire.limits import TakenLimit
from keyturn.wire.policy import LimitRule

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.kernel.clock import Clock
    from keyturn.verify.spending import Limiter
    from keyturn.wire.limits import TakeLimit

RULE: Final = "limit"


class NamedLimitService:
    """Charges limits by namespace and identifier; a workspace's names are its own."""

    def __init__(self, door: Door, limiter: Limiter, clock: Clock) -> None:
        """Need the door, and who keeps the counters."""
        self._door = door
        self._limiter = limiter
        self._clock = clock

    async def take(self, credentials: Credentials, request: TakeLimit) -> TakenLimit:
        """Charge a limit, or find that it refuses; needs `limit.take` on `limit/<namespace>`."""

        def work(op: Operation) -> str:
            op.authorise(Action.LIMIT_TAKE, Resource(f"limit/{request.namespace}"))
            return op.workspace

        workspace = await self._door.read(credentials, work)
        rule = LimitRule(
            name=RULE,
            limit=request.limit,
            window_seconds=request.window_seconds,
            burst=request.burst,
            on_store_error=request.on_store_error,
        )
        demand = LimitDemand(rule, workspace, f"limit/{request.namespace}/{request.identifier}", request.cost)
        now = self._clock.now()
        outcome = self._limiter.take_now((demand,), now)
        if outcome is None:
            outcome = await self._limiter.take((demand,), now)
        report = outcome.reports[0] if outcome.reports else None
        return TakenLimit(
            admitted=outcome.admitted,
            limit=request.limit,
            remaining=0 if report is None else report.remaining,
            reset_seconds=0.0 if report is None else report.reset_seconds,
            retry_after_seconds=outcome.retry_after_seconds,
            store_failed=outcome.store_failed,
        )
