from collections.abc import AsyncIterator

import pytest

from tests.leases.bench import Bench, opened_bench


@pytest.fixture
async def bench(migrated_database_url: str) -> AsyncIterator[Bench]:
    """A founded installation with leases; the test runs on both databases."""
    async with opened_bench(migrated_database_url) as one:
        yield one
