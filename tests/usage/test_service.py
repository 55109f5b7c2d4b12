from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyturn.errors import InputError, NotFoundError
from keyturn.kernel.clock import rfc3339
from keyturn.usage.collector import UsageCollector
from keyturn.usage.service import UsageService
from keyturn.wire.usage import Period
from tests.verification.world import World


@pytest.fixture
async def world(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A node that counts usage into its database, on either engine."""
    one = await World.open(migrated_database_url, tmp_path)
    one.count_usage(UsageCollector(one.database))
    yield one
    await one.close()


async def test_usage_of_a_key_is_told_by_period_version_and_outcome(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), scopes=("orders:read",))
    await world.follow()
    for scope in ("orders:read", "orders:read", "orders:write"):
        await world.verify(issued.key, scopes=scope)
    await world.collector.flush()
    service = UsageService(world.door)
    for period in Period:
        report = await service.of_key(world.credentials, issued.id, period=period)
        assert report.totals == {"VALID": 2, "INSUFFICIENT_PERMISSIONS": 1}
        assert {item.version_id for item in report.items} == {issued.version_id}
        assert report.since < report.items[0].start < report.until
        assert not report.truncated


async def test_a_range_is_taken_down_to_whole_buckets(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    service, now = UsageService(world.door), world.clock.now()
    report = await service.of_key(world.credentials, issued.id, period=Period.DAY, since=now - 86_400, until=now)
    assert report.since.endswith("T00:00:00.000Z")
    assert report.until > rfc3339(now)
    assert (report.items, report.totals) == ((), {})


async def test_a_range_that_is_empty_or_too_long_is_refused(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    service, now = UsageService(world.door), world.clock.now()
    for since, until in ((now, now - 86_400), (now - 40_000_000, now), (-1e12, now)):
        with pytest.raises(InputError) as refused:
            await service.of_key(world.credentials, issued.id, since=since, until=until)
        assert refused.value.field == "since"


async def test_the_usage_of_a_key_one_may_not_read_is_that_of_no_key(world: World) -> None:
    """Whether a key exists in another workspace, or at all, cannot be told from the refusal."""
    issued = await world.issue(await world.create_keyspace())
    _, stranger = await world.tenant("other")
    verifier = await world.restricted("key/orders/*")
    service = UsageService(world.door)
    refusals = []
    for caller, key in ((stranger, issued.id), (verifier, issued.id), (stranger, "key_none")):
        with pytest.raises(NotFoundError) as refused:
            await service.of_key(caller, key)
        refusals.append(str(refused.value).replace(key, "<id>"))
    assert len(set(refusals)) == 1


async def test_who_used_a_version_is_told_with_the_latest_first(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    await world.verify(issued.key, ip="192.0.2.1", user_agent="old/1", method="GET", path="/a")
    world.clock.advance(10)
    await world.verify(issued.key, ip="198.51.100.7", user_agent="new/2", method="POST", path="/b?secret=1")
    await world.collector.stop()
    service = UsageService(world.door)
    uses = await world.database.read(lambda c: service.last_used(c, [issued.version_id, "never-used"]))
    (used,) = uses.values()
    assert (used.count, used.at) == (2, used.callers[0].at)
    latest, earlier = used.callers
    assert (latest.ip_network, latest.user_agent, latest.endpoint) == ("198.51.100.0/24", "new/2", "POST /b")
    assert (earlier.ip_network, earlier.user_agent, earlier.endpoint) == ("192.0.2.0/24", "old/1", "GET /a")
