"""MySQL and MariaDB: each account is a user.

These servers end no account by themselves, and what makes a user is not one transaction: what a creation left behind is
dropped with it.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from keyturn.leases.connectors.settings import Host, Port, Statements, Tls, Word, destination, read, tls_context
from keyturn.leases.connectors.statements import check, render
from keyturn.leases.connectors.threads import Threads
from keyturn.leases.ports import Deadline, Destination, NewAccount, ProviderError
from keyturn.leases.rules import public_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

T = TypeVar("T")

CONNECT_SECONDS: Final = 8
COMMAND_SECONDS: Final = 10
STILL_SECONDS: Final = 5
_CREATION: Final = ("CREATE USER {{name}}@'%' IDENTIFIED BY {{password}}",)
_HOSTS: Final = "SELECT Host FROM mysql.user WHERE User = %s"
_SESSIONS: Final = "SELECT id FROM information_schema.processlist WHERE user = %s"
_NO_SUCH_THREAD: Final = 1094


class MysqlConnection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the server is reached."""

    host: Host
    port: Port = 3306
    database: Word | None = None
    username: Word
    password: Annotated[str, Meta(max_length=1024)] = ""
    tls: Tls = "verify"
    ca: str | None = None


class MysqlRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an account may do: the statements that make and drop it."""

    creation: Statements = _CREATION
    revocation: Statements = ()
    """Empty is our own way: the user locked, its sessions killed, the user dropped."""


class MysqlConnector:
    """Makes users of a MySQL or MariaDB server."""

    renewable = True
    revocable = True
    seconds_min = 1
    secret_settings = frozenset({"password"})

    def __init__(self) -> None:
        """Have threads of its own."""
        self._threads = Threads("keyturn-mysql")

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings of a connection."""
        settings = read(given, MysqlConnection, "connection")
        tls_context(settings.tls, settings.ca)
        return msgspec.structs.asdict(settings)

    def borrows(self, connection: Mapping[str, Any]) -> bool:  # noqa: ARG002 -- the port
        """Say no: it logs in as the user that was given."""
        return False

    def read_role(self, given: Mapping[str, Any], ttl_seconds: int, max_ttl_seconds: int) -> dict[str, Any]:  # noqa: ARG002 -- any time will do
        """Check the statements of a role."""
        role = read(given, MysqlRole, "config")
        check(role.creation, "config.creation", knows=("name", "password"), needs=("name", "password"))
        check(role.revocation, "config.revocation", knows=("name",), needs=("name",))
        return msgspec.structs.asdict(role)

    def destination(self, connection: Mapping[str, Any]) -> Destination:
        """Say where it leads."""
        return destination(connection)

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[MysqlSession]:
        """Connect."""
        settings = read(connection, MysqlConnection, "connection")
        wire = _Wire(settings)
        try:
            await self._threads.run(_guarded, wire.connect, settings.password)
            yield MysqlSession(wire.link, self._threads, settings)
        finally:
            wire.cut()


class MysqlSession:
    """One connection."""

    def __init__(self, link: Any, threads: Threads, settings: MysqlConnection) -> None:  # noqa: ANN401 -- pymysql has no types
        """Use a connection that is open."""
        self._link = link
        self._threads = threads
        self._settings = settings

    async def create(self, role: Mapping[str, Any], account: NewAccount, deadline: Deadline) -> dict[str, str]:
        """Make the user, statement by statement."""
        kept = read(role, MysqlRole, "config")
        password = account.password.reveal()
        values = {"name": account.name, "password": password}

        def make() -> None:
            for statement in kept.creation:
                rendered = render(statement, values, name_quote="'")
                deadline.check()
                self._execute(rendered)

        await self._run(make, password)
        return {}

    async def extend(self, role: Mapping[str, Any], name: str, expires_at: float) -> None:
        """Do nothing: the server ends no account by itself."""

    async def drop(self, role: Mapping[str, Any], name: str) -> None:
        """Lock the user, kill its sessions, and drop it."""
        kept = read(role, MysqlRole, "config")

        def drop() -> None:
            if not self._hosts(name):
                return
            if kept.revocation:
                for statement in kept.revocation:
                    self._execute(render(statement, {"name": name}, name_quote="'"))
                if self._hosts(name):
                    raise ProviderError("the statements of revocation left the user in place")
                return
            for host in self._hosts(name):
                self._execute("ALTER USER %s@%s ACCOUNT LOCK", (name, host))
            for session in self._column(_SESSIONS, (name,)):
                self._kill(session)
            for host in self._hosts(name):
                self._execute("DROP USER IF EXISTS %s@%s", (name, host))

        await self._run(drop)

    async def exists(self, name: str) -> bool:
        """Tell whether there is such a user."""
        return bool(await self._run(lambda: self._hosts(name)))

    async def check(self) -> None:
        """Tell whether users can be seen, which takes the rights that making them takes."""
        await self._run(lambda: self._hosts("keyturn"))

    async def _run(self, call: Callable[[], T], *secrets: str) -> T:
        return await self._threads.run(_guarded, call, self._settings.password, *secrets)

    def _execute(self, statement: str, given: Sequence[Any] | None = None) -> None:
        with self._link.cursor() as cursor:
            cursor.execute(statement, given)

    def _column(self, statement: str, given: Sequence[Any]) -> list[Any]:
        with self._link.cursor() as cursor:
            cursor.execute(statement, given)
            return [row[0] for row in cursor.fetchall()]

    def _hosts(self, name: str) -> list[Any]:
        return self._column(_HOSTS, (name,))

    def _kill(self, session: int) -> None:
        import pymysql

        try:
            self._execute("KILL %s", (session,))
        except pymysql.err.OperationalError as error:
            if error.args[0] != _NO_SUCH_THREAD:
                raise
        except pymysql.err.InternalError as error:
            if error.args[0] != _NO_SUCH_THREAD:
                raise


class _Wire:
    """A connection that is cut from outside of the thread which uses it.

    The driver's time limits are for each read: a server that sends a byte now and then would hold its thread for good.
    """

    def __init__(self, settings: MysqlConnection) -> None:
        self.link = _link(settings)
        self._place = (settings.host, settings.port)
        self._own: socket.socket | None = None
        self._over = False

    def connect(self) -> None:
        """Connect, in a thread."""
        made = socket.create_connection(self._place, CONNECT_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Of its own, since TLS takes the other one over.
        self._own = made.dup()
        if self._over:
            self._shut(self._own)
        self.link.connect(made)

    def cut(self) -> None:
        """End it now; whatever waits for the server fails."""
        self._over = True
        if self._own is not None:
            self._shut(self._own)
        self.link._force_close()  # noqa: SLF001 -- does not wait for the server, as `close` does

    @staticmethod
    def _shut(own: socket.socket) -> None:
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)
        own.close()


def _link(settings: MysqlConnection) -> Any:  # noqa: ANN401 -- pymysql has no types
    import pymysql

    return pymysql.connect(
        host=settings.host,
        port=settings.port,
        user=settings.username,
        password=settings.password,
        database=settings.database,
        ssl=tls_context(settings.tls, settings.ca),
        ssl_disabled=settings.tls == "disable",
        read_timeout=COMMAND_SECONDS,
        write_timeout=COMMAND_SECONDS,
        autocommit=True,
        charset="utf8mb4",
        defer_connect=True,
        # The server drops a connection that stands still, so that nothing is asked of it much later.
        init_command=f"SET SESSION wait_timeout = {STILL_SECONDS}, lock_wait_timeout = {COMMAND_SECONDS}",
    )


def _guarded(call: Callable[[], T], *secrets: str) -> T:
    import pymysql

    try:
        return call()
    except (pymysql.MySQLError, OSError, UnicodeError) as error:
        said = public_error(str(error.args[1] if len(error.args) > 1 else error) or type(error).__name__, secrets)
        code = f" ({error.args[0]})" if error.args and isinstance(error.args[0], int) and error.args[0] else ""
    raise ProviderError(f"MySQL: {said}{code}")
