from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyturn.storage.database import Database
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from tests.audit.log import Log, new_keyring, opened


@pytest.fixture
async def database(migrated_database_url: str) -> AsyncIterator[Database]:
    """An open, migrated, empty database: the test runs on both engines."""
    await migrate_async(migrated_database_url)
    async with opened(migrated_database_url) as one:
        yield one


@pytest.fixture
def keyring() -> Keyring:
    return new_keyring()


@pytest.fixture
def log(database: Database, keyring: Keyring) -> Log:
    """An audit log to write to and to tamper with."""
    return Log(database, keyring)


@pytest.fixture
async def file_log(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Log]:
    """An audit log on SQLite, for what does not depend on the engine."""
    url = f"sqlite:///{tmp_path / 'keyturn.db'}"
    await migrate_async(url)
    async with opened(url) as one:
        yield Log(one, keyring)
