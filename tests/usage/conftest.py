from collections.abc import AsyncIterator

import pytest

from keyturn.kernel.clock import Clock
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.migrate import migrate_async
from keyturn.usage.collector import UsageCollector


@pytest.fixture
async def database(migrated_database_url: str) -> AsyncIterator[Database]:
    """An open, migrated, empty database on either engine."""
    await migrate_async(migrated_database_url)
    one = make_database(migrated_database_url, Clock())
    await one.open()
    yield one
    await one.close()


@pytest.fixture
def collector(database: Database) -> UsageCollector:
    """A collector that writes when it is told to."""
    return UsageCollector(database)
