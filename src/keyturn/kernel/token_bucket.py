"""Token buckets in process memory: what may be done so often, by all together or by each of many."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

REMEMBERED_MAX: Final = 4096

Of = TypeVar("Of", bound="Hashable")


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

    def wait_seconds(self, count: float = 1.0) -> float:
        """Return in how many seconds so many tokens are there, 0 when they are; takes none."""
        at = self._boottime()
        self._left = min(self._burst, self._left + (at - self._at) * self._per_second)
        self._at = at
        return max(0.0, (count - self._left) / self._per_second)

    def take(self, count: float = 1.0) -> bool:
        """Take so many tokens; False, taking none, when they are not there."""
        if self.wait_seconds(count):
            return False
        self._left -= count
        return True

    def owe(self) -> None:
        """Take one token, whether it is there or not."""
        self.wait_seconds()
        self._left -= 1.0


class TokenBuckets(Generic[Of]):
    """A bucket of one size for each of many; for any thread.

    Memory is bounded: the bucket taken from longest ago is forgotten first, which makes it full.
    """

    def __init__(self, per_second: float, burst: float, boottime: Callable[[], float]) -> None:
        """Begin with none, which is to say that all are full."""
        self._size = per_second, burst, boottime
        self._buckets: dict[Of, TokenBucket] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many buckets are remembered."""
        return len(self._buckets)

    def wait_seconds(self, of: Of, count: float = 1.0) -> float:
        """See TokenBucket; nothing is remembered for the question."""
        with self._lock:
            return (self._buckets.get(of) or TokenBucket(*self._size)).wait_seconds(count)

    def take(self, of: Of, count: float = 1.0) -> bool:
        """See TokenBucket."""
        with self._lock:
            return self._remembered(of).take(count)

    def owe(self, of: Of) -> None:
        """See TokenBucket."""
        with self._lock:
            self._remembered(of).owe()

    def forget(self, of: Of) -> None:
        """Let a bucket be full again."""
        with self._lock:
            self._buckets.pop(of, None)

    def _remembered(self, of: Of) -> TokenBucket:
        bucket = self._buckets.pop(of, None) or TokenBucket(*self._size)
        while len(self._buckets) >= REMEMBERED_MAX:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[of] = bucket
        return bucket
