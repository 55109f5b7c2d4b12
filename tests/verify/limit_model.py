"""A naive model of limits, in exact fractions, that the real ones are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from keyturn.verify.spending import LimitDemand


@dataclass
class LimitModel:
    """GCRA by its textbook: one theoretical arrival time for each counter, all or nothing."""

    arrivals: dict[tuple[str, str, int], Fraction] = field(default_factory=dict)

    def take(self, demands: Sequence[LimitDemand], now: Fraction) -> tuple[bool, list[tuple[int, Fraction, bool]]]:
        """Return whether all are admitted, and (remaining, reset, exceeded) of each."""
        planned = dict(self.arrivals)
        over = []
        for demand in demands:
            key, unit, room = self._numbers(demand)
            arrival = max(planned.get(key, now), now)
            after = arrival + demand.cost * unit
            over.append(demand.cost > 0 and after - now > room)
            if demand.cost > 0 and not over[-1]:
                planned[key] = after
        admitted = not any(
            exceeded and demand.rule.mode == "enforce" for demand, exceeded in zip(demands, over, strict=True)
        )
        if admitted:
            self.arrivals = planned
        return admitted, [self._standing(demand, now, exceeded) for demand, exceeded in zip(demands, over, strict=True)]

    def _standing(self, demand: LimitDemand, now: Fraction, exceeded: bool) -> tuple[int, Fraction, bool]:  # noqa: FBT001
        key, unit, room = self._numbers(demand)
        backlog = max(self.arrivals.get(key, now) - now, Fraction(0))
        return max(0, (room - backlog) // unit), backlog, exceeded

    @staticmethod
    def _numbers(demand: LimitDemand) -> tuple[tuple[str, str, int], Fraction, Fraction]:
        rule = demand.rule
        unit = Fraction(rule.window_seconds, rule.limit)
        burst = rule.limit if rule.burst is None else rule.burst
        return (demand.workspace, demand.counter, rule.window_seconds), unit, burst * unit
