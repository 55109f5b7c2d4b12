"""Failed logins, bounded: a network that fails too often has to wait.  A login that succeeds is not counted.

    one network, one role      30 failures at once, then one a second
    one network                100 failures at once, then two a second

Memory is bounded: the places used longest ago are forgotten first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.audit.unauthenticated import source_network
from keyturn.errors import ThrottledError

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES_MAX: Final = 4096
ROLE_BURST: Final = 30.0
ROLE_PER_SECOND: Final = 1.0
NETWORK_BURST: Final = 100.0
NETWORK_PER_SECOND: Final = 2.0

_Place = tuple[str, ...]


class Throttle:
    """Counts failures per network and role; for one event loop."""

    def __init__(self, boottime: Callable[[], float]) -> None:
        """Begin without any failure."""
        self._boottime = boottime
        self._failures: dict[_Place, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def check(self, ip: str | None, *role: str) -> None:
        """Raise ThrottledError when too many logins of this network have failed."""
        network = source_network(ip)
        for place, burst, rate in _places(network, role):
            over = self._level(place, rate) + 1.0 - burst
            if over > 0:
                raise ThrottledError(
                    "too many logins from this network have failed",
                    retry_after_seconds=over / rate,
                    hint="mend what fails, and try again later",
                )

    def failed(self, ip: str | None, *role: str) -> None:
        """Count one failure."""
        network = source_network(ip)
        for place, _, rate in _places(network, role):
            level = self._level(place, rate) + 1.0
            self._failures.pop(place, None)
            while len(self._failures) >= PLACES_MAX:
                del self._failures[next(iter(self._failures))]
            self._failures[place] = (level, self._boottime())

    def _level(self, place: _Place, rate: float) -> float:
        level, at = self._failures.get(place, (0.0, 0.0))
        return max(0.0, level - (self._boottime() - at) * rate)


def _places(network: str, role: tuple[str, ...]) -> tuple[tuple[_Place, float, float], ...]:
    return (
        ((network, *role), ROLE_BURST, ROLE_PER_SECOND),
        ((network,), NETWORK_BURST, NETWORK_PER_SECOND),
    )
