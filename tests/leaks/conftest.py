from collections.abc import AsyncIterator

import pytest

from tests.leaks.station import Station, opened_station


@pytest.fixture
async def station(migrated_database_url: str) -> AsyncIterator[Station]:
    """A founded installation that knows of leaks; the test runs on both databases."""
    async with opened_station(migrated_database_url) as one:
        yield one
