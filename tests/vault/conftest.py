from collections.abc import AsyncIterator

import pytest

from tests.vault.safe import Safe, opened_safe


@pytest.fixture
async def safe(migrated_database_url: str) -> AsyncIterator[Safe]:
    """A founded installation with a vault; the test runs on both databases."""
    async with opened_safe(migrated_database_url) as one:
        yield one
