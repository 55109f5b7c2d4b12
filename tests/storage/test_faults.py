import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, insert, text

from keyturn.errors import BrokenInvariantError, ConflictError, InputError, KeyturnError, NotFoundError, StorageError
from keyturn.kernel.clock import Clock
from keyturn.storage.database import Database
from keyturn.storage.faults import translate
from keyturn.storage.migrate import migrate_async
from keyturn.storage.postgresql import WRITER_LOCK, PostgresqlDatabase, connect_driver
from keyturn.storage.schema import fact
from keyturn.storage.sqlite import SqliteDatabase
from keyturn.storage.transaction import Transaction
from keyturn.testing.postgres import PostgresServer
from tests.storage.ledger import changes, entry, facts, write_fact


def driver_error(kind: type[exc.DBAPIError], **attributes: str) -> exc.DBAPIError:
    origin = Exception("INSERT INTO fact VALUES ('not for the log')")
    for name, value in attributes.items():
        setattr(origin, name, value)
    return kind("INSERT", {}, origin)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (driver_error(exc.OperationalError, sqlite_errorname="SQLITE_FULL"), "storage_full"),
        (driver_error(exc.OperationalError, sqlite_errorname="SQLITE_BUSY"), "storage_locked"),
        (driver_error(exc.OperationalError, sqlite_errorname="SQLITE_BUSY_SNAPSHOT"), "storage_locked"),
        (driver_error(exc.OperationalError, sqlite_errorname="SQLITE_READONLY_DBMOVED"), "storage_readonly"),
        (driver_error(exc.OperationalError, sqlite_errorname="SQLITE_IOERR_WRITE"), "storage_io"),
        (driver_error(exc.DatabaseError, sqlite_errorname="SQLITE_NOTADB"), "storage_corrupt"),
        (driver_error(exc.OperationalError, sqlite_errorname="SQLITE_CANTOPEN"), "storage_path"),
        (driver_error(exc.DBAPIError, sqlstate="53100"), "storage_full"),
        (driver_error(exc.DBAPIError, sqlstate="53300"), "storage_busy"),
        (driver_error(exc.DBAPIError, sqlstate="55P03"), "storage_locked"),
        (driver_error(exc.DBAPIError, sqlstate="40P01"), "storage_locked"),
        (driver_error(exc.DBAPIError, sqlstate="25006"), "storage_readonly"),
        (driver_error(exc.DBAPIError, sqlstate="25P03"), "storage_slow"),
        (driver_error(exc.DBAPIError, sqlstate="57014"), "storage_slow"),
        (driver_error(exc.DBAPIError, sqlstate="42P01"), "storage_schema"),
        (driver_error(exc.DBAPIError, sqlstate="3D000"), "storage_absent"),
        (driver_error(exc.DBAPIError, sqlstate="28P01"), "storage_refused"),
        (driver_error(exc.DBAPIError, sqlstate="57P01"), "storage_unavailable"),
        (driver_error(exc.DBAPIError), "storage_unavailable"),
        (ConnectionRefusedError(), "storage_unavailable"),
        (TimeoutError(), "storage_unavailable"),
        (exc.TimeoutError(), "storage_unavailable"),
        (sqlite3.OperationalError("no such table: fact"), "storage_schema"),
    ],
)
def test_every_fault_has_a_code_and_a_hint_and_none_of_the_statement(error: BaseException, code: str) -> None:
    """What a statement held may be a secret; drivers put it into their texts."""
    found = translate(error)

    assert isinstance(found, StorageError)
    assert found.code == code
    assert found.hint
    assert "not for the log" not in f"{found} {found.hint} {found.internal}"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (driver_error(exc.IntegrityError, sqlstate="23505"), ConflictError),
        (driver_error(exc.IntegrityError, sqlite_errorname="SQLITE_CONSTRAINT_UNIQUE"), ConflictError),
        (driver_error(exc.IntegrityError, sqlite_errorname="SQLITE_CONSTRAINT_PRIMARYKEY"), ConflictError),
        (driver_error(exc.IntegrityError, sqlstate="23502"), BrokenInvariantError),
        (driver_error(exc.IntegrityError, sqlite_errorname="SQLITE_CONSTRAINT_NOTNULL"), BrokenInvariantError),
        (driver_error(exc.DBAPIError, sqlstate="22021"), InputError),
        (OverflowError(), InputError),
        (exc.InvalidRequestError(), BrokenInvariantError),
    ],
)
def test_what_is_not_a_fault_of_the_database_is_none(error: BaseException, expected: type[KeyturnError]) -> None:
    assert type(translate(error)) is expected


def test_our_errors_and_bugs_pass_unchanged() -> None:
    for error in (NotFoundError("x"), ValueError("a bug"), KeyError("a bug")):
        assert translate(error) is error


def test_outcome_is_unknown_only_when_the_connection_was_lost_during_commit() -> None:
    lost = driver_error(exc.DBAPIError, sqlstate="57P01")
    full = driver_error(exc.DBAPIError, sqlstate="53100")
    sqlite = driver_error(exc.OperationalError, sqlite_errorname="SQLITE_FULL")

    def code(error: BaseException, *, committing: bool) -> str:
        found = translate(error, committing=committing)
        assert isinstance(found, StorageError)
        return found.code

    assert code(lost, committing=True) == "storage_unknown"
    assert code(ConnectionResetError(), committing=True) == "storage_unknown"
    assert code(lost, committing=False) == "storage_unavailable"
    assert code(full, committing=True) == "storage_full"
    assert code(sqlite, committing=True) == "storage_full"


# --- SQLite: what can befall a file ---


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    path = tmp_path / "keyturn.db"
    await migrate_async(f"sqlite:///{path}")
    one = SqliteDatabase(path, Clock(), busy_seconds=0.1)
    await one.open()
    yield one
    await one.close()


def blob(name: str) -> Any:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute(insert(fact).values(name=name, value="x" * 200_000))
        write_fact(f"{name}-too")(transaction)

    return work


async def test_locked_database_is_refused_in_bounded_time_and_recovers(sqlite: SqliteDatabase, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "keyturn.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError) as caught:
        await sqlite.write(write_fact("locked out"))
    assert (caught.value.code, caught.value.hint) == ("storage_locked", "run `keyturn doctor`")
    assert await sqlite.read(facts) == set()
    other.execute("COMMIT")
    other.close()

    await sqlite.write(write_fact("after"))
    assert await sqlite.read(facts) == {"after"}


async def test_full_disk_leaves_nothing_half_written_and_recovers(sqlite: SqliteDatabase) -> None:
    def limit(transaction: Transaction) -> None:
        pages = transaction.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        transaction.connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 8}")

    await sqlite.write(limit)
    results = await asyncio.gather(sqlite.write(blob("a")), sqlite.write(blob("b")), return_exceptions=True)
    for result in results:
        assert isinstance(result, StorageError)
        assert result.code == "storage_full"
    assert await sqlite.read(facts) == set()
    assert await sqlite.read(changes) == []

    await sqlite.write(lambda t: t.connection.exec_driver_sql("PRAGMA max_page_count=1000000"))
    await sqlite.write(blob("a"))
    assert await sqlite.read(facts) == {"a", "a-too"}
    assert [change.seq for change in await sqlite.read(changes)] == [1]


async def test_write_that_the_system_refuses_leaves_nothing_and_recovers(sqlite: SqliteDatabase) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    codes = set()
    try:
        for attempt in range(8):
            try:
                await sqlite.write(blob(f"a{attempt}"))
            except StorageError as error:
                codes.add(error.code)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert codes
    assert codes <= {"storage_io", "storage_full"}
    kept = await sqlite.read(facts)
    assert {name for name in kept if f"{name}-too" in kept} == {name for name in kept if not name.endswith("-too")}

    await sqlite.write(blob("after"))
    found = await sqlite.read(changes)
    assert [change.seq for change in found] == list(range(1, len(found) + 1))


async def test_damaged_file_is_named_as_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "keyturn.db"
    path.write_bytes(b"this is no database, and it is longer than a header" * 100)
    database = SqliteDatabase(path, Clock())
    with pytest.raises(StorageError) as caught:
        await database.open()
    assert caught.value.code == "storage_corrupt"
    await database.close()


# --- PostgreSQL: what can befall a server ---


@pytest.fixture(scope="module")
def fragile_server() -> Iterator[PostgresServer]:
    """A server of this module's own, to be killed and paused."""
    with PostgresServer.start() as server:
        yield server


@pytest.fixture
async def postgres(fragile_server: PostgresServer) -> AsyncIterator[PostgresqlDatabase]:
    url = fragile_server.create_database()
    await migrate_async(url)
    one = PostgresqlDatabase(url, Clock())
    await one.open()
    yield one
    await one.close()


async def write_at_once(database: Database, name: str) -> None:
    async with asyncio.timeout(120):
        await database.write(write_fact(name))


@pytest.mark.postgres
async def test_killed_server_is_an_error_and_the_next_one_is_used(
    postgres: PostgresqlDatabase, fragile_server: PostgresServer
) -> None:
    await write_at_once(postgres, "before")
    fragile_server.kill()
    for attempt in (postgres.write(write_fact("during")), postgres.read(facts), postgres.head()):
        with pytest.raises(StorageError) as caught:
            await attempt
        assert caught.value.code == "storage_unavailable"
    fragile_server.restart()

    await write_at_once(postgres, "after")
    assert await postgres.read(facts) == {"before", "after"}


@pytest.mark.postgres
async def test_connections_lost_while_idle_are_replaced_unnoticed(
    postgres: PostgresqlDatabase, fragile_server: PostgresServer
) -> None:
    await write_at_once(postgres, "before")
    await asyncio.gather(*(postgres.read(facts) for _ in range(5)))
    fragile_server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyturn'")

    await write_at_once(postgres, "after")
    for found in await asyncio.gather(*(postgres.read(facts) for _ in range(5))):
        assert found == {"before", "after"}
    assert (await postgres.head()).seq == 2


@pytest.mark.postgres
async def test_unit_that_loses_its_connection_is_not_run_again(
    postgres: PostgresqlDatabase, fragile_server: PostgresServer
) -> None:
    runs = []

    def work(transaction: Transaction) -> None:
        runs.append(1)
        write_fact("lost")(transaction)
        pid = transaction.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        fragile_server.query(f"SELECT pg_terminate_backend({pid})")
        transaction.connection.execute(text("SELECT 1"))

    with pytest.raises(StorageError) as caught:
        await postgres.write(work)
    assert caught.value.code == "storage_unavailable"
    assert runs == [1]
    await write_at_once(postgres, "after")
    assert await postgres.read(facts) == {"after"}


@pytest.mark.postgres
async def test_connection_lost_during_commit_is_called_unknown(
    postgres: PostgresqlDatabase, fragile_server: PostgresServer
) -> None:
    def work(transaction: Transaction) -> None:
        transaction.append(entry("x"))

    name = postgres_name(postgres)
    fragile_server.query(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON change DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()",
        name,
    )
    with pytest.raises(StorageError) as caught:
        await postgres.write(work)
    assert caught.value.code == "storage_unknown"
    fragile_server.query("DROP TRIGGER die ON change", name)
    await write_at_once(postgres, "after")


def postgres_name(database: PostgresqlDatabase) -> str:
    return database.url.rpartition("/")[2]


@pytest.mark.postgres
async def test_server_that_stands_still_is_given_up_and_found_again(
    postgres: PostgresqlDatabase, fragile_server: PostgresServer
) -> None:
    """No wait is unbounded: not for a server that is stopped or cut off, which answers no cancellation either."""
    await write_at_once(postgres, "before")
    await postgres.head()
    postgres.batch_seconds = postgres.head_seconds = 0.3
    fragile_server.pause()
    try:
        async with asyncio.timeout(120):
            with pytest.raises(StorageError):
                await postgres.write(write_fact("during"))
            with pytest.raises(StorageError):
                await postgres.head()
            with pytest.raises(StorageError):
                await postgres.read(facts, within_seconds=0.3)
    finally:
        fragile_server.resume()
        postgres.batch_seconds = postgres.head_seconds = 10.0

    await write_at_once(postgres, "after")
    assert {"before", "after"} <= await postgres.read(facts)


@pytest.mark.postgres
async def test_paused_writer_of_another_node_holds_nobody_up_for_ever(postgres: PostgresqlDatabase) -> None:
    """A node that stops in the middle of a transaction (SIGSTOP) is cut off by the server."""
    paused = await connect_driver(postgres.url)
    await paused.execute("BEGIN")
    await paused.execute(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
    await paused.execute("UPDATE change_head SET seq = seq + 1")

    await write_at_once(postgres, "after")
    assert (await postgres.head()).seq == 1
    paused.terminate()


@pytest.mark.postgres
async def test_read_only_server_is_named_as_the_cause(
    postgres: PostgresqlDatabase, fragile_server: PostgresServer
) -> None:
    name = postgres_name(postgres)
    fragile_server.query(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    fragile_server.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(StorageError) as caught:
        await postgres.write(write_fact("refused"))
    assert caught.value.code == "storage_readonly"
    fragile_server.query(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    fragile_server.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    await write_at_once(postgres, "after")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda url: url.replace("keyturn:", "keyturn:wrong"), "storage_refused"),
        (lambda url: url.rpartition("/")[0] + "/absent", "storage_absent"),
    ],
    ids=["password", "name"],
)
async def test_wrong_address_is_named_as_the_cause(fragile_server: PostgresServer, change: Any, code: str) -> None:
    database = PostgresqlDatabase(change(fragile_server.url()), Clock())
    with pytest.raises(StorageError) as caught:
        await database.open()
    await database.close()
    assert caught.value.code == code
    assert "wrong" not in f"{caught.value} {caught.value.internal}"
