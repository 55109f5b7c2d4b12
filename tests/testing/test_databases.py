"""A database that was used and given back is as a new one."""

import asyncpg
import pytest

from keyturn.testing.databases import MigratedDatabases
from keyturn.testing.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def databases(postgres_server: PostgresServer) -> MigratedDatabases:
    return MigratedDatabases(postgres_server)


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _log(server: PostgresServer, url: str) -> str:
    return server.query("SELECT log_id, seq FROM change_head", _name(url))


def test_two_at_once_are_two(databases: MigratedDatabases) -> None:
    assert databases.take() != databases.take()


def test_it_comes_back_without_rows_and_with_a_log_of_its_own(
    databases: MigratedDatabases, postgres_server: PostgresServer
) -> None:
    url = databases.take()
    before = _log(postgres_server, url)
    postgres_server.query("INSERT INTO fact (name, value) VALUES ('sample', '1')", _name(url))
    databases.give_back(url)
    assert databases.take() == url
    assert postgres_server.query("SELECT count(*) FROM fact", _name(url)) == "0"
    after = _log(postgres_server, url)
    assert after.rpartition("|")[2] == before.rpartition("|")[2]
    assert after != before


async def test_whoever_is_still_connected_is_not_any_more(databases: MigratedDatabases) -> None:
    url = databases.take()
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    databases.give_back(url)
    assert databases.take() == url
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE fact ADD COLUMN sample text",
        "CREATE TABLE sample (one int)",
        "DROP TABLE fact",
        "UPDATE alembic_version SET version_num = '0001'",
        "ALTER DATABASE {name} SET statement_timeout = 1000",
    ],
)
def test_one_that_was_altered_never_comes_back(
    databases: MigratedDatabases, postgres_server: PostgresServer, change: str
) -> None:
    url = databases.take()
    postgres_server.query(change.format(name=_name(url)), _name(url))
    databases.give_back(url)
    assert databases.take() != url
