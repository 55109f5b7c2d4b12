import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyturn.kernel.clock import Clock
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.migrate import migrate
from keyturn.testing.postgres import PostgresServer

ENGINES = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]


def prepare(url: str) -> None:
    migrate(url)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("storage") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=ENGINES)
async def migrated_url(request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path) -> AsyncIterator[str]:
    """A migrated, empty database on either engine."""
    if request.param == "sqlite":
        shutil.copy(migrated_file, tmp_path / "keyturn.db")
        yield f"sqlite:///{tmp_path / 'keyturn.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = await asyncio.to_thread(server.template, "storage", prepare)
    url = server.create_database(name)
    yield url
    server.drop_database(url)


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
