"""Which limiter a worker gets, and what is said of it.

KEYTURN_VALKEY_URL           counters in Valkey: exact over all workers and servers that share it
one worker                   counters in its memory: exact while no other server shares the database
KEYTURN_LIMITS=per_worker    counters in each worker's memory: n workers admit up to n times a limit
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.errors import ConfigError
from keyturn.http.health import HealthCheck
from keyturn.telemetry.metrics import Family, Sample, counter, gauge
from keyturn.verify.limits import LocalLimiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.config import Settings
    from keyturn.storage.valkey import LimitMeter, ValkeyLimiter
    from keyturn.verify.spending import Limiter


def make_limiter(settings: Settings) -> Limiter:
    """Make the limiter that these settings ask for; nothing is opened before `start_limiter`.

    Raises ConfigError when the address of Valkey is none.
    """
    if settings.valkey_url is None:
        return LocalLimiter()
    from keyturn.storage.valkey import ValkeyLimiter

    try:
        return ValkeyLimiter(settings.valkey_url)
    except ImportError:
        message = "KEYTURN_VALKEY_URL is set and the package `redis` is not installed"
        raise ConfigError(message, hint="pip install 'keyturn[server]'") from None


async def start_limiter(limiter: Limiter) -> None:
    """Connect to the store, if there is one; one that does not answer yet is tried on in the background."""
    if not isinstance(limiter, LocalLimiter):
        await _of_valkey(limiter).start()


async def stop_limiter(limiter: Limiter) -> None:
    """Close what was opened."""
    if not isinstance(limiter, LocalLimiter):
        await _of_valkey(limiter).stop()


def limiter_checks(limiter: Limiter) -> Iterator[HealthCheck]:
    """Tell whether the store of limits answers; it is named and does not make a node unready."""
    if not isinstance(limiter, LocalLimiter):
        store = _of_valkey(limiter)
        detail = None if store.connected else f"each limit's on_store_error decides: {store.reason}"
        yield HealthCheck("limit_store", ok=store.connected, required=False, detail=detail)


def limiter_families(limiter: Limiter) -> Iterator[Family]:
    """Measure it."""
    if isinstance(limiter, LocalLimiter):
        yield gauge("keyturn_limit_counters", "Counters of limits held in memory.", len(limiter))
        yield _failures(limiter.failures)
        return
    store = _of_valkey(limiter)
    meter = store.meter
    yield gauge("keyturn_limit_store_up", "Whether the store of limits answers.", float(store.connected))
    yield counter("keyturn_limit_store_requests", "Requests whose limits the store was asked for.", meter.requests)
    yield counter("keyturn_limit_store_round_trips", "Round trips to the store of limits.", meter.round_trips)
    yield counter("keyturn_limit_store_losses", "Times the store of limits was lost.", meter.losses)
    yield _batches(meter)
    yield _failures(meter.failures)


def _failures(failures: dict[str, int]) -> Family:
    samples = [Sample("_total", {"decision": decision}, count) for decision, count in sorted(failures.items())]
    text = "Requests whose limits could not be counted, by what their rules decided."
    return Family("keyturn_limit_store_errors", text, "counter", samples)


def _batches(meter: LimitMeter) -> Family:
    samples: list[Sample] = []
    running = 0
    for exponent, count in enumerate(meter.batches):
        running += count
        bound = "+Inf" if exponent == len(meter.batches) - 1 else repr(float(2**exponent - 1))
        samples.append(Sample("_bucket", {"le": bound}, running))
    samples.append(Sample("_count", {}, running))
    samples.append(Sample("_sum", {}, meter.requests))
    return Family("keyturn_limit_store_batch", "Requests that shared a round trip.", "histogram", samples)


def _of_valkey(limiter: Limiter) -> ValkeyLimiter:
    from keyturn.storage.valkey import ValkeyLimiter

    if not isinstance(limiter, ValkeyLimiter):
        raise TypeError(f"expected a limiter of make_limiter, found {type(limiter).__name__}")
    return limiter
