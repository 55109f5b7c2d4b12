import asyncio
from typing import Any

import pytest

from keyturn.errors import StorageError
from keyturn.storage.database import Database
from keyturn.testing.waiting import until_async
from keyturn.usage import collector as module
from keyturn.usage import store
from keyturn.usage.collector import FLUSH_SECONDS, LATEST_SECONDS, UsageCollector, pause_after
from keyturn.usage.rules import CALLERS_MAX
from keyturn.usage.store import CountedRow
from tests.usage.sample import AT, request, rollups, uses, version

START = int(AT)


async def test_counts_are_rolled_up_by_minute_hour_and_day(database: Database, collector: UsageCollector) -> None:
    one = version()
    for seconds in (0, 59, 60, 3600, 86_400):
        collector.count(one, "VALID", request(), AT + seconds)
    collector.count(one, "EXPIRED", request(), AT)
    assert await collector.flush()
    found = await rollups(database)
    assert found["v1", "VALID", "minute", START] == 2
    assert found["v1", "VALID", "minute", START + 60] == 1
    assert found["v1", "VALID", "hour", START] == 3
    assert found["v1", "VALID", "hour", START + 3600] == 1
    assert found["v1", "VALID", "day", START] == 4
    assert found["v1", "VALID", "day", START + 86_400] == 1
    assert found["v1", "EXPIRED", "day", START] == 1
    assert collector.written == collector.counted == 6


def test_a_flush_follows_soon_after_a_short_one_and_leaves_most_of_the_time_to_others_after_a_long_one() -> None:
    assert pause_after(0.001) == FLUSH_SECONDS
    assert pause_after(0.01) == pytest.approx(0.19)
    assert pause_after(0.1) == LATEST_SECONDS
    assert pause_after(2.0) == 6.0


async def test_later_flushes_add_to_earlier_ones(database: Database, collector: UsageCollector) -> None:
    for _ in range(3):
        collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
        assert await collector.flush()
    await collector.stop()
    assert (await rollups(database))["v1", "VALID", "day", START] == 3
    assert (await uses(database, "v1"))["v1"].count == 3


async def test_callers_of_one_network_and_endpoint_are_one(database: Database, collector: UsageCollector) -> None:
    for host in range(5):
        told = request(ip=f"192.0.2.{host}", user_agent="tool/1", method="GET", path=f"/orders?page={host}")
        collector.count(version(), "VALID", told, AT + host)
    await collector.stop()
    (caller,) = (await uses(database, "v1"))["v1"].callers
    assert (caller.ip_network, caller.user_agent, caller.endpoint) == ("192.0.2.0/24", "tool/1", "GET /orders")
    assert (caller.first_at, caller.at, caller.count, caller.other) == (AT, AT + 4, 5, False)


async def test_callers_past_the_cap_are_summed_up_as_other(database: Database, collector: UsageCollector) -> None:
    for number in range(CALLERS_MAX + 10):
        collector.count(version(), "VALID", request(path=f"/{number}"), AT + number)
        if number % 7 == 0:
            await collector.flush()
    await collector.stop()
    used = (await uses(database, "v1"))["v1"]
    assert used.count == CALLERS_MAX + 10
    assert len(used.callers) == CALLERS_MAX + 1
    (other,) = [one for one in used.callers if one.other]
    assert (other.count, other.ip_network, other.user_agent, other.endpoint) == (10, None, None, None)


async def test_a_caller_that_is_kept_stays_so_after_a_restart(database: Database) -> None:
    for _ in range(2):
        collector = UsageCollector(database)
        for number in range(CALLERS_MAX):
            collector.count(version(), "VALID", request(path=f"/{number}"), AT)
        await collector.stop()
    used = (await uses(database, "v1"))["v1"]
    assert [caller.count for caller in used.callers] == [2] * CALLERS_MAX


async def test_the_time_of_the_last_use_never_goes_back(database: Database, collector: UsageCollector) -> None:
    for at in (AT + 100, AT + 50):
        collector.count(version(), "VALID", request(), at)
        await collector.flush()
    await collector.stop()
    (caller,) = (await uses(database, "v1"))["v1"].callers
    assert (caller.first_at, caller.at) == (AT + 50, AT + 100)


async def test_a_started_collector_writes_by_itself(database: Database, collector: UsageCollector) -> None:
    collector.start()
    collector.count(version(), "VALID", request(), AT)
    for _ in range(600):
        if await rollups(database):
            break
        await asyncio.sleep(0.05)
    assert await rollups(database)
    await collector.stop()


async def test_stop_writes_everything(database: Database, collector: UsageCollector) -> None:
    """No count that was taken is lost by a graceful stop."""
    collector.start()
    for number in range(2500):
        collector.count(version(number), "VALID", request(), AT)
    await collector.stop()
    assert len(await rollups(database)) == 3 * 2500
    assert collector.lost == 0


async def test_what_the_database_refused_is_written_with_the_next_flush(
    database: Database, collector: UsageCollector
) -> None:
    write = database.write

    async def refuse(_work: Any) -> Any:
        raise StorageError("the disk is full", code="storage_full")

    database.write = refuse  # type: ignore[assignment,method-assign]
    collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
    assert not await collector.flush()
    collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
    assert not await collector.flush()
    database.write = write  # type: ignore[method-assign]
    await collector.stop()
    assert (await rollups(database))["v1", "VALID", "day", START] == 2
    assert (await uses(database, "v1"))["v1"].count == 2
    assert (collector.failures, collector.lost, collector.in_doubt) == (2, 0, 0)


async def test_what_a_bug_keeps_from_being_written_is_lost_and_counted_and_the_rest_is_written(
    database: Database, collector: UsageCollector
) -> None:
    write = database.write

    async def stumble(_work: Any) -> Any:
        database.write = write  # type: ignore[method-assign]
        raise ValueError("a bug")

    collector.start()
    database.write = stumble  # type: ignore[assignment,method-assign]
    collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
    await until_async(lambda: collector.lost == 1)
    collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
    await until_async(lambda: collector.written == 1)
    await collector.stop()
    assert (await rollups(database))["v1", "VALID", "day", START] == 1
    assert (collector.counted, collector.written, collector.lost, collector.failures) == (2, 1, 1, 1)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_write_of_unknown_outcome_is_done_once(
    database: Database, collector: UsageCollector, *, arrives: bool
) -> None:
    """Whether the answer or the write itself got lost, the sum is exact."""
    write = database.write

    async def answer_gets_lost(work: Any) -> Any:
        if arrives:
            await write(work)
        raise StorageError("no answer came", code="storage_unknown")

    database.write = answer_gets_lost  # type: ignore[method-assign]
    collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
    for _ in range(2):
        assert not await collector.flush()
        assert (collector.in_doubt, collector.written) == (1, 0)
    database.write = write  # type: ignore[method-assign]
    collector.count(version(), "VALID", request(ip="192.0.2.1"), AT)
    await collector.stop()
    assert (await rollups(database))["v1", "VALID", "day", START] == 2
    assert (await uses(database, "v1"))["v1"].count == 2
    assert (collector.in_doubt, collector.written, collector.lost) == (0, 2, 0)


async def test_memory_is_bounded_and_what_does_not_fit_is_counted(collector: UsageCollector) -> None:
    """A flood of distinct callers or keys costs a bounded amount of memory, and no count disappears unseen."""
    limit = module.ENTRIES_MAX
    one = version()
    for number in range(limit + 50):
        collector.count(one, "VALID", request(path=f"/{number}"), AT)
    assert collector.waiting == limit + 1
    assert collector.counted == limit + 50
    assert collector.lost == 0
    for number in range(2 * limit):
        collector.count(version(1), "VALID", request(), AT + 60 * number)
    assert collector.waiting == 2 * limit
    assert collector.lost > 0
    assert collector.counted == limit + 50 + 2 * limit


async def test_usage_leaves_no_change_row(database: Database, collector: UsageCollector) -> None:
    """Usage must not wake every follower, nor delay those who wait for a revocation."""
    before = await database.head()
    collector.count(version(), "VALID", request(), AT)
    await collector.stop()
    assert await database.head() == before


async def test_old_minutes_and_hours_are_dropped_and_days_kept(database: Database) -> None:
    row: CountedRow = ("key_a", "v1", START, "VALID", "wsp_1", "ksp_1", 1)
    await database.write(lambda t: store.add_counts(t.connection, [row]))
    await database.write(lambda t: store.prune(t.connection, AT + 86_400))
    assert {period for _, _, period, _ in await rollups(database)} == {"minute", "hour", "day"}
    await database.write(lambda t: store.prune(t.connection, AT + 3 * 86_400))
    assert {period for _, _, period, _ in await rollups(database)} == {"hour", "day"}
    await database.write(lambda t: store.prune(t.connection, AT + 3650 * 86_400))
    assert {period for _, _, period, _ in await rollups(database)} == {"day"}
