from collections.abc import AsyncIterator

import pytest

from tests.keys.desk import Desk, opened_desk


@pytest.fixture
async def desk(migrated_database_url: str) -> AsyncIterator[Desk]:
    """A founded installation; the test runs on both databases."""
    async with opened_desk(migrated_database_url) as one:
        yield one
