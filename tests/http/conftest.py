from collections.abc import AsyncIterator

import pytest

from tests.http.sample import Sample, opened_sample


@pytest.fixture
async def sample() -> AsyncIterator[Sample]:
    """The edge over a few sample routes."""
    async with opened_sample() as one:
        yield one
