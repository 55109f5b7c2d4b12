"""Questions about usage: what is answered, to whom, and what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from keyturn.access.caller import Credentials
from keyturn.errors import InputError, NotFoundError
from keyturn.storage.schema import access_grant, usage_loss
from keyturn.usage.collector import UsageCollector
from keyturn.usage.places import CAPS
from keyturn.usage.service import UsageService
from keyturn.wire.usage import Dimension, Period, UsageFilter
from tests.usage.sample import request
from tests.verification.world import Issued, World


@pytest.fixture
async def world(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A node that counts usage into its database, on either engine."""
    one = await World.open(migrated_database_url, tmp_path)
    one.count_usage(UsageCollector(one.database))
    yield one
    await one.close()


@pytest.fixture
async def used(world: World) -> tuple[Issued, Issued]:
    """Two keys in two keyspaces, of which the first was used more."""
    orders, parcels = await world.create_keyspace("orders"), await world.create_keyspace("parcels")
    first, second = await world.issue(orders, scopes=("orders:read",)), await world.issue(parcels)
    await world.follow()
    told: dict[str, Any] = {"method": "GET", "ip": "192.0.2.1", "user_agent": "tool/1"}
    for number in range(6):
        await world.verify(first.key, path=f"/orders/{number % 2}", country="de", **told)
    world.clock.advance(1)
    await world.verify(first.key, scopes="orders:write", path="/orders/0", country="fr", **told)
    world.clock.advance(1)
    for _ in range(2):
        await world.verify(second.key, path="/parcels", **told)
    await world.collector.stop()
    return first, second


async def reader(world: World, resource: str) -> Credentials:
    """Return the credentials of somebody who may only read the usage of `resource`."""
    found = await world.restricted(resource)
    changed = update(access_grant).where(access_grant.c.id == world.last_grant).values(actions_json='["usage.read"]')
    await world.database.write(lambda t: t.connection.execute(changed))
    return found


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 9),
        ({"keyspace": "orders"}, 7),
        ({"owner": "team-a"}, 9),
        ({"owner": "nobody"}, 0),
        ({"outcome": "INSUFFICIENT_PERMISSIONS"}, 1),
        ({"endpoint": "GET /orders/0"}, 4),
        ({"endpoint": "GET /orders/0", "owner": "team-a"}, 4),
        ({"endpoint": "GET /orders/0", "owner": "nobody"}, 0),
        ({"country": "DE"}, 6),
        ({"country": "DE", "outcome": "EXPIRED"}, 0),
        ({"ip_network": "192.0.2.0/24", "keyspace": "parcels"}, 2),
        ({"user_agent": "tool/1"}, 9),
    ],
)
@pytest.mark.parametrize("period", [Period.HOUR, Period.DAY])
async def test_a_series_counts_what_is_asked_for(
    world: World, used: tuple[Issued, Issued], asked: dict[str, str], count: int, period: Period
) -> None:
    assert used
    series = await UsageService(world.door).series(world.credentials, UsageFilter(**asked), period=period)
    assert sum(point.count for point in series.items) == sum(series.totals.values()) == count
    assert series.period == str(period)
    assert not series.truncated


@pytest.mark.parametrize(
    ("asked", "count"),
    [({}, 7), ({"endpoint": "GET /orders/1"}, 3), ({"country": "DE"}, 6), ({"user_agent": "tool/1"}, 7)],
)
async def test_a_key_is_counted_alone(
    world: World, used: tuple[Issued, Issued], asked: dict[str, str], count: int
) -> None:
    service = UsageService(world.door)
    series = await service.series(world.credentials, UsageFilter(key=used[0].id, **asked))
    assert sum(series.totals.values()) == count
    assert (await service.series(world.credentials, UsageFilter(version=used[1].version_id))).totals == {"VALID": 2}


async def test_a_series_is_grouped(world: World, used: tuple[Issued, Issued]) -> None:
    first, second = used
    service = UsageService(world.door)

    async def grouped(by: Dimension, **asked: str) -> dict[str | None, int]:
        series = await service.series(world.credentials, UsageFilter(**asked), group_by=by)
        return {point.group: point.count for point in series.items}

    assert await grouped(Dimension.KEYSPACE) == {"orders": 7, "parcels": 2}
    assert await grouped(Dimension.OUTCOME) == {"VALID": 8, "INSUFFICIENT_PERMISSIONS": 1}
    assert await grouped(Dimension.KEY) == {first.id: 7, second.id: 2}
    assert await grouped(Dimension.KEY, endpoint="GET /orders/0") == {first.id: 4}
    assert await grouped(Dimension.VERSION, key=first.id) == {first.version_id: 7}
    assert await grouped(Dimension.OWNER) == {"team-a": 9}
    assert await grouped(Dimension.COUNTRY, keyspace="orders") == {"DE": 6, "FR": 1}


async def test_the_most_used_come_first(world: World, used: tuple[Issued, Issued]) -> None:
    first, second = used
    service = UsageService(world.door)
    keys = await service.top(world.credentials, Dimension.KEY, UsageFilter())
    assert [(rank.value, rank.count) for rank in keys.items] == [(first.id, 7), (second.id, 2)]
    endpoints = await service.top(world.credentials, Dimension.ENDPOINT, UsageFilter(), count=2)
    assert [(rank.value, rank.count) for rank in endpoints.items] == [("GET /orders/0", 4), ("GET /orders/1", 3)]
    assert endpoints.total == 9
    networks = await service.top(world.credentials, Dimension.IP_NETWORK, UsageFilter(keyspace="parcels"))
    assert [(rank.value, rank.count) for rank in networks.items] == [("192.0.2.0/24", 2)]
    keyspaces = await service.top(world.credentials, Dimension.KEYSPACE, UsageFilter(), since=world.clock.now() - 2e6)
    assert [rank.value for rank in keyspaces.items] == ["orders", "parcels"]


async def test_what_would_have_been_is_in_no_total_but_can_be_asked_for(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    await world.verify(issued.key)
    version = world.replication.replica.version(issued.version_id)
    assert version is not None
    world.collector.count(version, "SHADOW_RATE_LIMITED", request(), world.clock.now())
    await world.collector.stop()
    service = UsageService(world.door)
    series = await service.series(world.credentials, UsageFilter())
    assert (series.totals, series.shadow) == ({"VALID": 1}, {"SHADOW_RATE_LIMITED": 1})
    assert [point.count for point in series.items] == [1]
    shadow = await service.series(world.credentials, UsageFilter(outcome="SHADOW_RATE_LIMITED"))
    assert [point.count for point in shadow.items] == [1]
    top = await service.top(world.credentials, Dimension.KEY, UsageFilter())
    assert top.total == 1


async def test_only_keyspaces_whose_usage_may_be_read_are_counted(world: World, used: tuple[Issued, Issued]) -> None:
    """Not even the sum tells of a keyspace that the caller may not know of."""
    first, second = used
    service = UsageService(world.door)
    some = await reader(world, "keyspace/parcels")
    assert (await service.series(some, UsageFilter())).totals == {"VALID": 2}
    assert [rank.value for rank in (await service.top(some, Dimension.KEY, UsageFilter())).items] == [second.id]
    assert [use.key_id for use in (await service.last_uses(some, UsageFilter())).items] == [second.id]
    for hidden in (UsageFilter(keyspace="orders"), UsageFilter(key=first.id), UsageFilter(version=first.version_id)):
        with pytest.raises(NotFoundError):
            await service.series(some, hidden)
    one = await reader(world, f"key/orders/{first.id}")
    assert sum((await service.series(one, UsageFilter(key=first.id))).totals.values()) == 7
    assert (await service.series(one, UsageFilter())).totals == {}
    _, stranger = await world.tenant("other")
    assert (await service.series(stranger, UsageFilter())).totals == {}
    for hidden in (UsageFilter(keyspace="orders"), UsageFilter(key=first.id)):
        with pytest.raises(NotFoundError):
            await service.top(stranger, Dimension.ENDPOINT, hidden)


@pytest.mark.parametrize(
    ("asked", "group_by"),
    [
        ({"endpoint": "GET /", "country": "DE"}, None),
        ({"endpoint": "GET /"}, Dimension.COUNTRY),
        ({"endpoint": "GET /", "version": "v1"}, None),
        ({"country": "DE"}, Dimension.OWNER),
        ({"key": "key_1"}, Dimension.OWNER),
    ],
)
async def test_what_is_not_counted_together_is_refused(
    world: World, asked: dict[str, str], group_by: Dimension | None
) -> None:
    with pytest.raises(InputError, match="together"):
        await UsageService(world.door).series(world.credentials, UsageFilter(**asked), group_by=group_by)


async def test_minutes_of_what_is_counted_by_hours_are_refused(world: World) -> None:
    with pytest.raises(InputError, match="minute"):
        await UsageService(world.door).series(
            world.credentials, UsageFilter(), period=Period.MINUTE, group_by=Dimension.USER_AGENT
        )


@pytest.mark.parametrize("period", list(Period))
async def test_a_range_at_the_end_of_time_is_refused(world: World, period: Period) -> None:
    with pytest.raises(InputError) as refused:
        await UsageService(world.door).series(world.credentials, UsageFilter(), period=period, until=253_402_300_799.0)
    assert refused.value.field == "until"


async def test_the_last_use_of_a_version_names_its_latest_caller(world: World, used: tuple[Issued, Issued]) -> None:
    first, second = used
    uses = (await UsageService(world.door).last_uses(world.credentials, UsageFilter())).items
    assert [(use.version_id, use.keyspace, use.endpoint) for use in uses] == [
        (second.version_id, "parcels", "GET /parcels"),
        (first.version_id, "orders", "GET /orders/0"),
    ]
    assert {(use.ip_network, use.user_agent) for use in uses} == {("192.0.2.0/24", "tool/1")}


async def test_losses_are_shown_to_who_may_see_nodes(world: World) -> None:
    row = {"node": "nod_1", "at": world.clock.now(), "counted": 5, "written": 3, "lost": 2}
    await world.database.write(lambda t: t.connection.execute(insert(usage_loss), row))
    service = UsageService(world.door)
    found = await service.losses(world.credentials)
    assert (found.lost, [(loss.node, loss.lost) for loss in found.items]) == (2, [("nod_1", 2)])
    assert (await service.losses(await reader(world, "keyspace/orders"))).items == ()


def test_the_caps_are_those_that_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "usage.md").read_text()
    for cap in CAPS.values():
        assert f" {cap} " in page
