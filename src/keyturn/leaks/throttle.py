"""How many values a principal may ask about: whoever asks can test guesses.

In the memory of a worker, so that every worker admits as many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from keyturn.errors import ThrottledError

if TYPE_CHECKING:
    from collections.abc import Callable

PER_SECOND: Final = 500.0
BURST: Final = 50_000.0
PRINCIPALS_MAX: Final = 4096


class Throttle:
    """A token bucket for each principal; the least recent ones are forgotten, which makes them full."""

    def __init__(self, boottime: Callable[[], float], *, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        """Count in the boot time given."""
        self._boottime = boottime
        self._per_second = per_second
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, principal: str, count: int) -> None:
        """Take so many; raises ThrottledError, taking none, when that many are not left."""
        with self._lock:
            now = self._boottime()
            left, at = self._left.pop(principal, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_second)
            enough = left >= count
            self._left[principal] = (left - count if enough else left, now)
            if len(self._left) > PRINCIPALS_MAX:
                self._left.popitem(last=False)
        if not enough:
            raise ThrottledError(
                f"{principal} has asked about too many values",
                retry_after_seconds=(count - left) / self._per_second,
                hint="ask about those that changed since the last scan alone",
            )
