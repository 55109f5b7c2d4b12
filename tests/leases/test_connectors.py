"""Connectors against real servers: an account appears, works, and disappears with its sessions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pymysql
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from keyturn.errors import InputError
from keyturn.kernel.secret import Secret, random_base62
from keyturn.leases.connectors.mysql import MysqlConnector
from keyturn.leases.connectors.postgresql import PostgresqlConnector, scram_verifier
from keyturn.leases.connectors.redis import RedisConnector
from keyturn.leases.ports import Connector, NewAccount, ProviderError
from keyturn.testing.mariadb import MariadbServer, find_mariadbd
from keyturn.testing.ports import free_port
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.valkey import ValkeyServer
from keyturn.testing.waiting import PATIENCE_SECONDS

NOW = 1_900_000_000.0


@dataclass
class Patience:
    """A `Deadline` that runs out at a check."""

    checks_max: int = 100

    def check(self) -> None:
        self.checks_max -= 1
        if self.checks_max < 0:
            raise ProviderError("too late")


def account(name: str = "") -> NewAccount:
    """Return an account to make."""
    return NewAccount(name or f"kt_reader_{random_base62(14)}", Secret(random_base62(32)), NOW, 600)


def connection_of(connector: Connector, **given: Any) -> dict[str, Any]:
    return connector.read_connection({"tls": "disable", **given})


# --- PostgreSQL --------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A PostgreSQL database and how Keyturn reaches it."""

    connector: PostgresqlConnector
    connection: dict[str, Any]
    server: PostgresServer
    database: str

    def role(self, **given: Any) -> dict[str, Any]:
        return self.connector.read_role(given, 60, 600)

    async def login(self, made: NewAccount) -> Any:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.server.port,
            user=made.name,
            password=made.password.reveal(),
            database=self.database,
            ssl=False,
        )


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[Server]:
    """A database of its own; Keyturn connects as a user who may create roles and is no superuser."""
    url = postgres_server.create_database()
    database = urlsplit(url).path.lstrip("/")
    manager, password = f"manager_{random_base62(8).lower()}", random_base62(20)
    postgres_server.query(f"CREATE ROLE {manager} LOGIN CREATEROLE PASSWORD '{password}'")
    postgres_server.query(f'GRANT ALL ON DATABASE "{database}" TO {manager} WITH GRANT OPTION')
    postgres_server.query(f"GRANT ALL ON SCHEMA public TO {manager} WITH GRANT OPTION", database)
    connector = PostgresqlConnector()
    connection = connection_of(
        connector,
        host="127.0.0.1",
        port=postgres_server.port,
        database=database,
        username=manager,
        password=password,
    )
    yield Server(connector, connection, postgres_server, database)
    postgres_server.drop_database(url)


CREATION = [
    "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL {{expiration}}",
    "GRANT CREATE, USAGE ON SCHEMA public TO {{name}}",
]


@pytest.mark.postgres
async def test_a_role_appears_logs_in_and_is_gone_with_all_that_it_owned(postgres: Server) -> None:
    made, role = account(), postgres.role(creation=CREATION)
    async with postgres.connector.open(postgres.connection) as session:
        assert await session.create(role, made, Patience()) == {}
        assert await session.exists(made.name)
        user = await postgres.login(made)
        await user.execute("CREATE TABLE mine (id int)")
        await session.drop(role, made.name)
        assert not await session.exists(made.name)
        await session.drop(role, made.name)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await user.fetchval("SELECT 1")
    with pytest.raises(asyncpg.PostgresError):
        await postgres.login(made)
    user.terminate()
    assert postgres.server.query("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'", postgres.database)


@pytest.mark.postgres
async def test_the_server_gets_no_password_and_ends_logins_itself(postgres: Server) -> None:
    """What a statement carries is a verifier, which is of no use to log in with."""
    made = account()
    async with postgres.connector.open(postgres.connection) as session:
        await session.create(postgres.role(), made, Patience())
        stored = postgres.server.query(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{made.name}'")
        assert stored.startswith("SCRAM-SHA-256$4096:")
        until = f"SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_authid WHERE rolname = '{made.name}'"
        assert postgres.server.query(until) == str(int(NOW))
        await session.extend(postgres.role(), made.name, NOW + 60)
        assert postgres.server.query(until) == str(int(NOW) + 60)
        await session.drop(postgres.role(), made.name)


@pytest.mark.postgres
async def test_all_statements_of_a_creation_are_done_or_none(postgres: Server) -> None:
    made = account()
    role = postgres.role(creation=[*CREATION, "GRANT SELECT ON no_such_table TO {{name}}"])
    async with postgres.connector.open(postgres.connection) as session:
        with pytest.raises(ProviderError, match=r'relation "no_such_table" does not exist \(42P01\)'):
            await session.create(role, made, Patience())
        assert not await session.exists(made.name)
        with pytest.raises(ProviderError, match="too late"):
            await session.create(postgres.role(), made, Patience(1))
        assert not await session.exists(made.name)


@pytest.mark.postgres
async def test_own_statements_of_revocation_have_to_drop_the_role(postgres: Server) -> None:
    made = account()
    kept = postgres.role(revocation=['ALTER ROLE "{{name}}" NOLOGIN'])
    gone = postgres.role(revocation=['DROP ROLE "{{name}}"'])
    async with postgres.connector.open(postgres.connection) as session:
        await session.create(gone, made, Patience())
        with pytest.raises(ProviderError, match="left the role in place"):
            await session.drop(kept, made.name)
        await session.drop(gone, made.name)
        assert not await session.exists(made.name)


@pytest.mark.postgres
async def test_a_check_says_what_is_wrong_and_no_password(postgres: Server) -> None:
    async with postgres.connector.open(postgres.connection) as session:
        await session.check()
    made = account()
    weak = {**postgres.connection, "username": made.name, "password": made.password.reveal()}
    async with postgres.connector.open(postgres.connection) as session:
        await session.create(postgres.role(), made, Patience())
        with pytest.raises(ProviderError, match="may not create roles"):
            async with postgres.connector.open(weak) as other:
                await other.check()
        await session.drop(postgres.role(), made.name)
    wrong = {**postgres.connection, "password": "".join(("wrong", "-", "password"))}
    with pytest.raises(ProviderError, match="28P01") as refused:
        async with postgres.connector.open(wrong):
            pass
    assert "wrong-password" not in str(refused.value)
    with pytest.raises(ProviderError):
        async with postgres.connector.open({**postgres.connection, "port": free_port()}):
            pass


@pytest.mark.postgres
async def test_a_server_that_speaks_no_tls_is_refused_unless_told(postgres: Server) -> None:
    """The password of a source goes over no connection that was not checked."""
    strict = postgres.connector.read_connection({**postgres.connection, "tls": "verify"})
    with pytest.raises(ProviderError):
        async with postgres.connector.open(strict):
            pass


def test_a_verifier_is_that_of_rfc_7677() -> None:
    salt = b"\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81"
    assert scram_verifier(Secret("pencil"), salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


# --- MySQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariadbServer]:
    if find_mariadbd() is None:
        pytest.skip("no mariadbd is installed")
    with MariadbServer.start() as server:
        yield server


@pytest.mark.slow
async def test_a_mysql_user_appears_logs_in_and_is_gone_with_its_sessions(mariadb: MariadbServer) -> None:
    connector = MysqlConnector()
    connection = connection_of(
        connector, host="127.0.0.1", port=mariadb.port, username="keyturn", password=mariadb.password
    )
    role = connector.read_role(
        {
            "creation": [
                "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'",
                "GRANT SELECT, CREATE ON app.* TO {{name}}@'%'",
            ]
        },
        60,
        600,
    )
    made = account()
    async with connector.open(connection) as session:
        await session.check()
        assert await session.create(role, made, Patience()) == {}
        assert await session.exists(made.name)
        assert mariadb.users() == [made.name]
        user = mariadb.connect(made.name, made.password.reveal())
        with user.cursor() as cursor:
            cursor.execute("CREATE TABLE app.mine (id int)")
        await session.extend(role, made.name, NOW + 60)
        await session.drop(role, made.name)
        await session.drop(role, made.name)
        assert not await session.exists(made.name)
    assert mariadb.users() == []
    with pytest.raises(pymysql.MySQLError), user.cursor() as cursor:
        cursor.execute("SELECT 1")
    with pytest.raises(pymysql.MySQLError):
        mariadb.connect(made.name, made.password.reveal())
    user._force_close()  # noqa: SLF001 -- its server is gone for it


@pytest.mark.slow
async def test_what_a_failed_mysql_creation_left_is_dropped(mariadb: MariadbServer) -> None:
    connector = MysqlConnector()
    connection = connection_of(
        connector, host="127.0.0.1", port=mariadb.port, username="keyturn", password=mariadb.password
    )
    role = connector.read_role(
        {"creation": ["CREATE USER {{name}} IDENTIFIED BY {{password}}", "GRANT NONSENSE"]}, 1, 2
    )
    made = account()
    async with connector.open(connection) as session:
        with pytest.raises(ProviderError, match=r"MySQL: .*\(1064\)") as refused:
            await session.create(role, made, Patience())
        assert made.password.reveal() not in str(refused.value)
        assert await session.exists(made.name)
        await session.drop(role, made.name)
    assert mariadb.users() == []
    with pytest.raises(ProviderError, match="1045") as denied:
        async with connector.open({**connection, "password": "".join(("wrong", "-", "password"))}):
            pass
    assert "wrong-password" not in str(denied.value)


@pytest.mark.slow
async def test_a_mysql_server_that_hangs_holds_no_loop(mariadb: MariadbServer) -> None:
    """The driver blocks in threads of its own: everything else goes on."""
    connector = MysqlConnector()
    connection = connection_of(
        connector, host="127.0.0.1", port=mariadb.port, username="keyturn", password=mariadb.password
    )
    mariadb.pause()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), connector.open(connection):
                pass
    finally:
        mariadb.resume()
    async with connector.open(connection) as session:
        await session.check()


# --- Redis -------------------------------------------------------------------------------------------------------


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> tuple[RedisConnector, dict[str, Any]]:
    connector = RedisConnector()
    parts = urlsplit(valkey_server.url)
    connection = connection_of(connector, host="127.0.0.1", port=valkey_server.port, password=parts.password or "")
    return connector, connection


@contextlib.asynccontextmanager
async def redis_as(made: NewAccount, port: int) -> AsyncIterator[Redis]:
    client = Redis(
        host="127.0.0.1", port=port, username=made.name, password=made.password.reveal(), single_connection_client=True
    )
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_redis_user_appears_is_bounded_and_is_gone(
    valkey: tuple[RedisConnector, dict[str, Any]], valkey_server: ValkeyServer
) -> None:
    connector, connection = valkey
    role = connector.read_role({"rules": ["~cache:*", "+get", "+set", "+ping"]}, 60, 600)
    made = account()
    async with connector.open(connection) as session, redis_as(made, valkey_server.port) as user:
        await session.check()
        assert await session.create(role, made, Patience()) == {}
        assert await session.exists(made.name)
        await user.set("cache:one", "1")
        with pytest.raises(NoPermissionError):
            await user.set("other", "1")
        await session.extend(role, made.name, NOW + 60)
        await session.drop(role, made.name)
        await session.drop(role, made.name)
        assert not await session.exists(made.name)
        with pytest.raises((RedisError, OSError)):
            await user.get("cache:one")
    async with redis_as(made, valkey_server.port) as user:
        with pytest.raises(AuthenticationError):
            await user.get("cache:one")


async def test_a_redis_rule_that_is_none_leaves_no_user(valkey: tuple[RedisConnector, dict[str, Any]]) -> None:
    connector, connection = valkey
    made = account()
    async with connector.open(connection) as session:
        with pytest.raises(ProviderError, match="Redis: "):
            await session.create({"rules": ["+no-such-command"]}, made, Patience())
        assert not await session.exists(made.name)
        with pytest.raises(ProviderError, match="too late"):
            await session.create({"rules": ["+get"]}, made, Patience(0))
    with pytest.raises(ProviderError) as refused:
        async with connector.open({**connection, "password": "".join(("wrong", "-", "password"))}):
            pass
    assert "wrong-password" not in str(refused.value)


@pytest.mark.parametrize("rule", ["nopass", ">word", "#" + "0" * 64, "on", "reset"])
def test_a_redis_role_sets_no_password_of_its_own(rule: str) -> None:
    with pytest.raises(InputError, match="about the password"):
        RedisConnector().read_role({"rules": [rule]}, 60, 600)


# --- all ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connector", [PostgresqlConnector(), MysqlConnector(), RedisConnector()])
def test_a_setting_that_is_wrong_is_named_and_not_repeated(connector: Connector) -> None:
    """A password in the wrong place is in no error."""
    word = "".join(("pass", "word", "-1"))
    for given, field in (
        ({"host": "db", "username": "me", "port": word}, "connection.port"),
        ({"host": "a b" + word, "username": "me"}, "connection.host"),
        ({"host": "db", "username": "me", "ca": "no PEM", "tls": "verify"}, "connection.ca"),
    ):
        with pytest.raises(InputError) as refused:
            connector.read_connection(given)
        assert refused.value.field == field
        assert word not in str(refused.value)


async def test_a_host_that_takes_no_connection_is_an_error_in_time() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        connector = RedisConnector()
        connection = connection_of(connector, host="127.0.0.1", port=deaf.getsockname()[1])
        with pytest.raises(ProviderError):
            async with connector.open(connection):
                pass


@pytest.mark.parametrize("connector", [PostgresqlConnector(), MysqlConnector(), RedisConnector()])
async def test_a_host_that_is_no_name_is_an_error_and_no_crash(connector: Connector) -> None:
    for host in ("a..b", "x" * 80):
        reach = connector.open(connection_of(connector, host=host, username="me"))
        with pytest.raises(ProviderError):
            async with reach:
                pass


async def test_a_server_that_drips_holds_no_thread() -> None:
    """Each byte starts the driver's time limit anew: what is given up has to be cut, or the threads run out."""
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        line, _ = listening.accept()
        with line, suppress(OSError):
            line.sendall(b"\xff\xff\x00\x00")
            while True:
                line.sendall(b"a")
                over.wait(0.05)
        over.set()

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        connector = MysqlConnector()
        connection = connection_of(connector, host="127.0.0.1", port=listening.getsockname()[1], username="me")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), connector.open(connection):
                pass
        assert await asyncio.to_thread(over.wait, PATIENCE_SECONDS)
