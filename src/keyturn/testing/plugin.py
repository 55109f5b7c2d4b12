"""The pytest plugin: `pytest_plugins = ["keyturn.testing.plugin"]` in the top `conftest.py`.

Everything is made when a test first asks for it, once per xdist worker, and is gone when the run ends or is killed.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyturn.testing.clock import ManualClock

if TYPE_CHECKING:
    from keyturn.testing.databases import MigratedDatabases
    from keyturn.testing.postgres import PostgresServer
    from keyturn.testing.server import RunningServer
    from keyturn.testing.valkey import ValkeyServer

_DATABASES = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that stands at 2026-01-01T00:00:00Z until the test moves it."""
    return ManualClock()


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[PostgresServer]":
    """The PostgreSQL server of this worker; mark a test that asks for it with `postgres`."""
    from keyturn.testing.postgres import PostgresServer

    # Tests kill the server, never the machine.
    with PostgresServer.start(fsync=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: "PostgresServer") -> Iterator[str]:
    """The URL of a new, empty database on PostgreSQL, dropped after the test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def migrated_databases(postgres_server: "PostgresServer") -> "MigratedDatabases":
    """The migrated databases of this worker on PostgreSQL, for fixtures that outlive a test."""
    from keyturn.testing.databases import MigratedDatabases

    return MigratedDatabases(postgres_server)


@pytest.fixture
def migrated_postgres_url(migrated_databases: "MigratedDatabases") -> Iterator[str]:
    """The URL of a migrated, empty database on PostgreSQL: ten times as fast to have as a new one."""
    url = migrated_databases.take()
    yield url
    migrated_databases.give_back(url)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    from keyturn.storage.migrate import migrate

    path = tmp_path_factory.mktemp("migrated") / "keyturn.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def valkey_server() -> "Iterator[ValkeyServer]":
    """The Valkey server of this worker; a test that kills or pauses one starts its own."""
    from keyturn.testing.valkey import ValkeyServer

    with ValkeyServer.start(durable=False) as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: "ValkeyServer") -> Iterator[str]:
    """The address of an empty Valkey, for `KEYTURN_VALKEY_URL`."""
    valkey_server.command("FLUSHALL")
    yield valkey_server.url
    valkey_server.command("FLUSHALL")


@pytest.fixture(params=_DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keyturn.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=_DATABASES)
def migrated_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty database: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "keyturn.db")
        return f"sqlite:///{tmp_path / 'keyturn.db'}"
    url: str = request.getfixturevalue("migrated_postgres_url")
    return url


@pytest.fixture(params=_DATABASES)
def server_database_url(request: pytest.FixtureRequest) -> str | None:
    """What `start_server` takes: the test runs once on SQLite (None) and once on a migrated PostgreSQL database."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("migrated_postgres_url")
    return url


@pytest.fixture
def start_server(tmp_path: Path) -> "Iterator[Callable[..., RunningServer]]":
    """Start real servers: `start_server(database_url=..., env=...)`; all of them end with the test.

    The data folder is `tmp_path / "data-1"` for the first, and so on, unless `data_dir` names another.
    """
    from keyturn.testing.server import RunningServer

    started: list[RunningServer] = []

    def start(
        database_url: str | None = None,
        *,
        data_dir: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> RunningServer:
        folder = data_dir or tmp_path / f"data-{len(started) + 1}"
        started.append(RunningServer.start(folder, database_url, env=env))
        return started[-1]

    yield start
    for server in started:
        server.kill9()
