from collections.abc import AsyncIterator

import pytest

from tests.access.house import House, opened_house


@pytest.fixture
async def house(migrated_database_url: str) -> AsyncIterator[House]:
    """A founded installation; the test runs on both databases."""
    async with opened_house(migrated_database_url) as one:
        yield one
