"""What was counted before there were dimensions is known by keyspace and owner too."""

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text

from keyturn.storage.schema import usage_dimension
from keyturn.usage.collector import UsageCollector
from tests.verification.world import World

_migration = importlib.import_module("keyturn.storage.migrations.versions.0004_usage")


@pytest.fixture
async def world(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A node that counts usage into its database, on either engine."""
    one = await World.open(migrated_database_url, tmp_path)
    one.count_usage(UsageCollector(one.database))
    yield one
    await one.close()


async def _rows(world: World) -> list[tuple[object, ...]]:
    rows = await world.database.read(lambda c: c.execute(select(usage_dimension)).all())
    return sorted(tuple(row) for row in rows)


async def test_the_migration_fills_what_a_flush_would_have_written(world: World) -> None:
    keys = [await world.issue(await world.create_keyspace(name)) for name in ("orders", "orders-2")]
    keys.append(await world.issue(await world.create_keyspace("parcels")))
    await world.follow()
    for key in (*keys, keys[0]):
        await world.verify(key.key)
    await world.collector.stop()
    before = await _rows(world)
    assert len(before) == 3 * 2 * 3
    await world.database.write(lambda t: t.connection.execute(delete(usage_dimension)))
    for dimension, value in (("keyspace", "''"), ("owner", "k.owner")):
        fill = text(_migration._FILL.format(dimension=dimension, value=value))  # noqa: SLF001 -- what the revision runs
        await world.database.write(lambda t, fill=fill: t.connection.execute(fill))  # type: ignore[misc]
    assert await _rows(world) == before
