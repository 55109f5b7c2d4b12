"""A token bucket in process memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class TokenBucket:
    """Admits `burst` at once and `per_second` in the long run; for one event loop."""

    __slots__ = ("_at", "_boottime", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float, boottime: Callable[[], float]) -> None:
        """Begin full."""
        self._per_second = per_second
        self._burst = burst
        self._boottime = boottime
        self._left = burst
        self._at = boottime()

    def take(self) -> bool:
        """Take one token, or answer False when none is left."""
        at = self._boottime()
        self._left = min(self._burst, self._left + (at - self._at) * self._per_second)
        self._at = at
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
