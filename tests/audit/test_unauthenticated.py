import asyncio

import msgspec
import pytest

from keyturn.audit.unauthenticated import (
    LEAVES_MAX,
    MINUTES_MAX,
    NETWORKS_MAX,
    OTHER,
    Refusals,
    Unauthenticated,
    source_network,
    summarise,
)
from keyturn.storage.database import Database
from tests.audit.log import Log

MINUTE = 1_767_225_600


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2::9", "2001:db8:1::/48"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        (None, "unknown"),
        ("not an address", "unknown"),
    ],
)
def test_failures_are_counted_by_network(ip: str | None, network: str) -> None:
    assert source_network(ip) == network


def test_networks_beyond_the_leaves_of_a_minute_share_one() -> None:
    networks = {f"10.0.{n}.0/24": n + 1 for n in range(LEAVES_MAX + 3)}

    lines = summarise(MINUTE, networks | {OTHER: 100})

    assert lines[0] == Refusals(MINUTE, f"10.0.{LEAVES_MAX + 2}.0/24", LEAVES_MAX + 3)
    assert lines[-1] == Refusals(MINUTE, OTHER, 100 + 1 + 2 + 3)
    assert sum(line.count for line in lines) == sum(networks.values()) + 100


async def test_memory_is_bounded_and_nothing_is_dropped(database: Database) -> None:
    """Who sends bad tokens from everywhere and for ever must not fill the memory, nor hide a number."""
    counter = Unauthenticated(database)
    for n in range(NETWORKS_MAX + 500):
        counter.count(f"10.{n // 256}.{n % 256}.1", MINUTE)
    for minute in range(MINUTES_MAX + 50):
        counter.count("203.0.113.7", MINUTE + 60 * minute)

    held = counter._minutes  # noqa: SLF001 -- the bound is the point
    assert len(held) == MINUTES_MAX
    assert all(len(networks) <= NETWORKS_MAX + 1 for networks in held.values())
    assert counter.waiting == counter.total == NETWORKS_MAX + 500 + MINUTES_MAX + 50


async def test_minute_becomes_one_leaf_per_network_with_its_count(log: Log) -> None:
    await log.create_workspace()
    counter = Unauthenticated(log.database)
    for _ in range(31):
        counter.count("203.0.113.7", MINUTE + 3)
    counter.count("2001:db8::1", MINUTE + 59)
    counter.count("203.0.113.7", MINUTE + 60)

    assert await counter.flush(MINUTE) == 2

    leaves = [msgspec.json.decode(body) for body in await log.bodies()]
    assert [(leaf["action"], leaf["outcome"], leaf["detail"]) for leaf in leaves] == [
        ("auth.refused", "denied", {"count": 31, "minute": "2026-01-01T00:00:00.000Z", "network": "203.0.113.0/24"}),
        ("auth.refused", "denied", {"count": 1, "minute": "2026-01-01T00:00:00.000Z", "network": "2001:db8::/48"}),
    ]
    assert counter.waiting == 1


async def test_counts_survive_a_database_that_cannot_be_written(log: Log) -> None:
    counter = Unauthenticated(log.database)
    counter.count("203.0.113.7", MINUTE)

    assert await counter.flush() == 0
    assert counter.waiting == 1

    await log.create_workspace()
    assert await counter.flush() == 1
    assert counter.waiting == 0


async def test_stop_writes_down_the_minute_that_is_not_over(log: Log) -> None:
    await log.create_workspace()
    counter = Unauthenticated(log.database)
    stop = asyncio.Event()
    running = asyncio.create_task(counter.run(stop))
    counter.count("203.0.113.7", log.database.clock.now())
    stop.set()
    await running

    assert len(await log.bodies()) == 1
