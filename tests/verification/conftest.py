from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.verification.world import World


@pytest.fixture
async def world(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A loaded, fresh node with an empty workspace, on either engine."""
    one = await World.open(migrated_database_url, tmp_path)
    yield one
    await one.close()


@pytest.fixture
async def other(world: World, migrated_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A second node on the same database; PostgreSQL only."""
    one = await World.open(migrated_database_url, tmp_path, admin=world.admin)
    yield one
    await one.close()
