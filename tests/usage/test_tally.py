"""What a process that is killed had counted and not written is known to the unit."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from keyturn.errors import StorageError
from keyturn.storage.database import Database
from keyturn.storage.schema import usage_loss, usage_writer
from keyturn.usage.collector import UsageCollector
from tests.usage.sample import AT, request, rollups, version


async def losses(database: Database) -> list[tuple[str, int, int, int]]:
    rows = await database.read(lambda c: c.execute(select(usage_loss)).all())
    return [(row.node, row.counted, row.written, row.lost) for row in rows]


def files(folder: Path) -> list[str]:
    """Name the counter files of a folder."""
    return [path.name for path in folder.glob("*.counters*")]


def killed(collector: UsageCollector) -> None:
    """Let go of the file as a process that is killed does."""
    collector.tally.close(settled=False)


def started(database: Database, folder: Path, node: str) -> UsageCollector:
    """Return a collector that keeps its tally, and flushes when it is told to."""
    collector = UsageCollector(database, node, folder)
    collector.keep()
    return collector


async def test_what_was_not_written_is_recorded_at_the_next_start(database: Database, tmp_path: Path) -> None:
    first = started(database, tmp_path, "nod_1")
    for _ in range(5):
        first.count(version(), "VALID", request(), AT)
    assert await first.flush()
    for _ in range(3):
        first.count(version(), "VALID", request(), AT)
    killed(first)
    second = started(database, tmp_path, "nod_2")
    await second.recover()
    assert await losses(database) == [("nod_1", 8, 5, 3)]
    assert second.recovered == 3
    await second.recover()
    assert second.recovered == 3
    await second.stop()
    assert files(tmp_path) == []
    assert await losses(database) == [("nod_1", 8, 5, 3)]


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_write_that_was_under_way_is_told_by_the_database(
    database: Database, tmp_path: Path, *, arrives: bool
) -> None:
    """Killed between the commit and the note of it: the database says which of the two it was."""
    first = started(database, tmp_path, "nod_1")
    write = database.write

    async def never_answers(work: Any) -> Any:
        if arrives:
            await write(work)
        raise StorageError("no answer came", code="storage_unknown")

    first.count(version(), "VALID", request(), AT)
    database.write = never_answers  # type: ignore[method-assign]
    assert not await first.flush()
    database.write = write  # type: ignore[method-assign]
    killed(first)
    second = started(database, tmp_path, "nod_2")
    await second.recover()
    stored = (await rollups(database)).get(("v1", "VALID", "day", int(AT)), 0)
    assert stored + second.recovered == 1
    assert await losses(database) == ([] if arrives else [("nod_1", 1, 0, 1)])


async def test_a_process_that_ends_well_leaves_nothing(database: Database, tmp_path: Path) -> None:
    one = UsageCollector(database, "nod_1", tmp_path)
    one.start()
    one.count(version(), "VALID", request(), AT)
    assert files(tmp_path) == ["usage-nod_1.counters"]
    await one.stop()
    assert (one.counted, one.written) == (1, 1)
    assert files(tmp_path) == []
    assert await losses(database) == []
    assert await database.read(lambda c: c.execute(select(usage_writer)).all()) == []


async def test_the_file_stays_when_the_loss_cannot_be_recorded(database: Database, tmp_path: Path) -> None:
    """A database that is away at the stop, and at the next start, hides no loss."""
    first = started(database, tmp_path, "nod_1")
    first.count(version(), "VALID", request(), AT)
    write = database.write

    async def refuse(_work: Any) -> Any:
        raise StorageError("the disk is full", code="storage_full")

    database.write = refuse  # type: ignore[assignment,method-assign]
    await first.stop()
    second = started(database, tmp_path, "nod_2")
    await second.recover()
    assert second.recovered == 0
    database.write = write  # type: ignore[method-assign]
    await second.recover()
    assert await losses(database) == [("nod_1", 1, 0, 1)]


async def test_usage_is_counted_without_a_file_too(database: Database, tmp_path: Path) -> None:
    one = UsageCollector(database, "nod_1", tmp_path / "missing")
    one.start()
    one.count(version(), "VALID", request(), AT)
    await one.stop()
    assert (one.counted, one.written, one.lost) == (1, 1, 0)
