from collections.abc import AsyncIterator

import pytest

from tests.webhooks.post import Post, opened_post


@pytest.fixture
async def post(migrated_database_url: str) -> AsyncIterator[Post]:
    """A founded installation with webhooks; the test runs on both databases."""
    async with opened_post(migrated_database_url) as one:
        yield one
