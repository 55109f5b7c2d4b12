import pytest

from keyturn.bootstrap.limiting import limiter_checks, limiter_families, make_limiter, start_limiter, stop_limiter
from keyturn.config import Settings
from keyturn.errors import ConfigError
from keyturn.kernel.secret import Secret
from keyturn.storage.valkey import ValkeyLimiter
from keyturn.telemetry.metrics import Metrics
from keyturn.testing.ports import free_port
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.spending import LimitDemand, Limiter
from keyturn.wire.policy import LimitRule

DEMAND = LimitDemand(LimitRule("burst", 5, 60), "wsp_one", "key/key_one/burst", 1)


def _limiter(url: str | None = None) -> Limiter:
    return make_limiter(Settings(valkey_url=None if url is None else Secret(url)))


def _scrape(limiter: Limiter) -> str:
    metrics = Metrics("nod_one")
    metrics.add(lambda: limiter_families(limiter))
    return metrics.render().decode()


async def test_one_worker_counts_in_its_memory() -> None:
    limiter = _limiter()
    await start_limiter(limiter)
    await limiter.take([DEMAND], 0.0)

    assert isinstance(limiter, LocalLimiter)
    assert list(limiter_checks(limiter)) == []
    assert 'keyturn_limit_counters{worker="nod_one"} 1.0' in _scrape(limiter)
    await stop_limiter(limiter)


async def test_with_an_address_the_store_counts_and_is_shown(valkey_url: str) -> None:
    limiter = _limiter(valkey_url)
    await start_limiter(limiter)
    for _ in range(3):
        await limiter.take([DEMAND], 0.0)

    assert isinstance(limiter, ValkeyLimiter)
    assert [(check.name, check.ok, check.required) for check in limiter_checks(limiter)] == [
        ("limit_store", True, False)
    ]
    text = _scrape(limiter)
    assert 'keyturn_limit_store_up{worker="nod_one"} 1.0' in text
    assert 'keyturn_limit_store_requests_total{worker="nod_one"} 3.0' in text
    assert 'keyturn_limit_store_batch_bucket{le="1.0",worker="nod_one"} 3.0' in text
    await stop_limiter(limiter)


async def test_a_store_that_is_away_is_shown_and_counted_and_keeps_nobody_from_starting() -> None:
    limiter = _limiter(f"redis://127.0.0.1:{free_port()}")
    await start_limiter(limiter)

    refused = limiter.take_now([DEMAND], 0.0)

    assert refused is not None
    assert not refused.admitted
    (check,) = limiter_checks(limiter)
    assert (check.ok, check.required) == (False, False)
    assert "on_store_error" in (check.detail or "")
    text = _scrape(limiter)
    assert 'keyturn_limit_store_up{worker="nod_one"} 0.0' in text
    assert 'keyturn_limit_store_errors_total{decision="deny",worker="nod_one"} 1.0' in text
    await stop_limiter(limiter)


def test_an_address_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="KEYTURN_VALKEY_URL"):
        _limiter("redis://host:port")
