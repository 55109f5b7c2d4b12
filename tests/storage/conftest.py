from collections.abc import AsyncIterator

import pytest

from keyturn.kernel.clock import Clock
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database


@pytest.fixture
def migrated_url(migrated_database_url: str) -> str:
    """A migrated, empty database on either engine."""
    return migrated_database_url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """An open, migrated, empty database on either engine."""
    one = make_database(migrated_url, Clock())
    await one.open()
    yield one
    await one.close()


@pytest.fixture
async def second(migrated_url: str) -> AsyncIterator[Database]:
    """Another node's view of the same database."""
    one = make_database(migrated_url, Clock())
    await one.open()
    yield one
    await one.close()
