"""Counts by owner, keyspace, endpoint, country, network and user agent, and their caps."""

import pytest

from keyturn.storage.database import Database
from keyturn.usage import places, store
from keyturn.usage.collector import UsageCollector
from keyturn.usage.places import CAPS, KEYSPACE_CAPS, Place, Where
from keyturn.usage.rules import OTHER
from keyturn.wire.usage import Dimension
from tests.usage.sample import AT, dimensions, request, rollups, version


async def test_what_was_told_is_counted_for_the_key_and_for_its_keyspace(
    database: Database, collector: UsageCollector
) -> None:
    told = request(ip="192.0.2.7", user_agent="tool/1", method="get", path="/orders?page=1", country="de")
    collector.count(version(1), "VALID", told, AT)
    collector.count(version(2, key="key_b"), "EXPIRED", told, AT)
    collector.count(version(1), "VALID", request(), AT)
    assert await collector.flush()
    for key, count in (("key_a", 1), ("key_b", 1), ("", 2)):
        for period in ("hour", "day"):
            assert await dimensions(database, "endpoint", period, key=key) == {"GET /orders": count}
            assert await dimensions(database, "country", period, key=key) == {"DE": count}
            assert await dimensions(database, "ip_network", period, key=key) == {"192.0.2.0/24": count}
            assert await dimensions(database, "user_agent", period, key=key) == {"tool/1": count}
    for period in ("minute", "hour", "day"):
        assert await dimensions(database, "owner", period) == {"o": 3}
        assert await dimensions(database, "keyspace", period) == {"": 3}
    assert await dimensions(database, "endpoint", "minute") == {"GET /orders": 2}


@pytest.mark.parametrize("each", [500, 10_000])
async def test_ten_thousand_endpoints_are_capped_and_the_sum_is_exact(
    database: Database, collector: UsageCollector, each: int
) -> None:
    """Whoever calls with random paths fills neither the database nor the memory, in one flush or in many."""
    one = version()
    for number in range(10_000):
        collector.count(one, "VALID", request(method="GET", path=f"/{number}"), AT)
        if number % each == each - 1:
            assert await collector.flush()
    await collector.stop()
    found = await dimensions(database, "endpoint", key="key_a")
    assert len(found) == CAPS[Dimension.ENDPOINT] + 1
    assert sum(found.values()) == 10_000
    assert found[OTHER] == 10_000 - CAPS[Dimension.ENDPOINT]
    of_keyspace = await dimensions(database, "endpoint")
    assert len(of_keyspace) == KEYSPACE_CAPS[Dimension.ENDPOINT] + 1
    assert sum(of_keyspace.values()) == 10_000


async def test_the_cap_holds_over_nodes_and_restarts(database: Database) -> None:
    """Which values an hour has is asked of the database, not of one process."""
    for first in range(0, 300, 60):
        collector = UsageCollector(database)
        for number in range(first, first + 60):
            collector.count(version(), "VALID", request(user_agent=f"tool/{number}"), AT)
        await collector.stop()
    found = await dimensions(database, "user_agent", key="key_a")
    assert len(found) == CAPS[Dimension.USER_AGENT] + 1
    assert sum(found.values()) == 300


async def test_another_hour_has_room_again(database: Database, collector: UsageCollector) -> None:
    for hour in range(2):
        for number in range(CAPS[Dimension.IP_NETWORK] + 1):
            told = request(ip=f"10.{hour}.{number}.1")
            collector.count(version(), "VALID", told, AT + 3600 * hour)
            assert await collector.flush()
    found = await dimensions(database, "ip_network", key="key_a")
    assert len(found) == 2 * CAPS[Dimension.IP_NETWORK] + 1
    assert found[OTHER] == 2


async def test_a_country_that_is_none_is_not_counted(database: Database, collector: UsageCollector) -> None:
    for country in ("D", "DEU", "1A", "ÄÖ", ""):
        collector.count(version(), "VALID", request(country=country), AT)
    assert await collector.flush()
    assert await dimensions(database, "country") == {}
    assert (await rollups(database))["v1", "VALID", "day", int(AT)] == 5


async def test_what_would_have_been_is_counted_but_is_no_use(database: Database, collector: UsageCollector) -> None:
    collector.count(version(), "SHADOW_RATE_LIMITED", request(ip="192.0.2.1"), AT)
    await collector.stop()
    assert (await rollups(database))["v1", "SHADOW_RATE_LIMITED", "day", int(AT)] == 1
    assert await database.read(lambda c: store.uses(c, ["v1"])) == {}


async def test_days_by_network_and_user_agent_end(database: Database, collector: UsageCollector) -> None:
    """What may concern a person is not kept for good."""
    collector.count(version(), "VALID", request(ip="192.0.2.1", user_agent="tool/1", path="/a"), AT)
    await collector.flush()
    await database.write(lambda t: store.prune(t.connection, AT + 402 * 86_400))
    assert await dimensions(database, "ip_network", "day") == {}
    assert await dimensions(database, "user_agent", "day") == {}
    assert await dimensions(database, "endpoint", "day") == {"/a": 1}
    assert await dimensions(database, "endpoint", "hour") == {}


def test_memory_of_places_is_bounded() -> None:
    held = places.Places()
    half = places.REMEMBERED_MAX // 2
    for hour in range(3):
        some: dict[Where, Place] = {
            ("ksp", "key", hour, ("192.0.2.1", str(one), None, None, None)): ("kept",) * 8 for one in range(half)
        }
        held.remember(some, {})
    found = [hour for hour in range(3) if held.find(("ksp", "key", hour, ("192.0.2.1", "0", None, None, None)))]
    assert found == [2]
