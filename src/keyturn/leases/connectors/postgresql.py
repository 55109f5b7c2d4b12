"""PostgreSQL: each account is a role that may log in until its lease ends.

The server gets a SCRAM verifier in place of the password, so that not even its own log holds one.  What creates a role
is one transaction, and the server ends a transaction that stands still, so that no role comes into being later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from keyturn.kernel.clock import rfc3339
from keyturn.kernel.secret import Secret, random_bytes
from keyturn.leases.connectors.settings import Host, Port, Statements, Tls, Word, destination, read, tls_context
from keyturn.leases.connectors.statements import check, render
from keyturn.leases.ports import Deadline, Destination, NewAccount, ProviderError
from keyturn.leases.rules import public_error

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence

CONNECT_SECONDS: Final = 8.0
COMMAND_SECONDS: Final = 10.0
STILL_SECONDS: Final = 5.0
_ITERATIONS: Final = 4096
_CREATION: Final = ("CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL {{expiration}}",)
_RENEWAL: Final = ("ALTER ROLE {{name}} VALID UNTIL {{expiration}}",)
_EXISTS: Final = "SELECT true FROM pg_catalog.pg_roles WHERE rolname = $1"
_CUT: Final = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1"
_HOLDS: Final = "SELECT pg_catalog.pg_has_role(current_user, $1, 'USAGE')"


class PostgresqlConnection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the server is reached."""

    host: Host
    port: Port = 5432
    database: Word = "postgres"
    username: Word
    password: Annotated[str, Meta(max_length=1024)] = ""
    tls: Tls = "verify"
    ca: str | None = None


class PostgresqlRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an account may do: the statements that make, prolong and drop it."""

    creation: Statements = _CREATION
    renewal: Statements = _RENEWAL
    revocation: Statements = ()
    """Empty is our own way: no more logins, sessions cut, what it owns handed over, rights and role dropped."""
    plain_password: bool = False
    """Put the password itself into the statements, not a SCRAM verifier of it."""


class PostgresqlConnector:
    """Makes roles of a PostgreSQL server."""

    renewable = True
    revocable = True
    seconds_min = 1
    secret_settings = frozenset({"password"})

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings of a connection."""
        settings = read(given, PostgresqlConnection, "connection")
        tls_context(settings.tls, settings.ca)
        return msgspec.structs.asdict(settings)

    def borrows(self, connection: Mapping[str, Any]) -> bool:  # noqa: ARG002 -- the port
        """Say no: it logs in as the user that was given."""
        return False

    def read_role(self, given: Mapping[str, Any], ttl_seconds: int, max_ttl_seconds: int) -> dict[str, Any]:  # noqa: ARG002 -- any time will do
        """Check the statements of a role."""
        role = read(given, PostgresqlRole, "config")
        check(role.creation, "config.creation", knows=("name", "password", "expiration"), needs=("name", "password"))
        check(role.renewal, "config.renewal", knows=("name", "expiration"))
        check(role.revocation, "config.revocation", knows=("name",), needs=("name",))
        return msgspec.structs.asdict(role)

    def destination(self, connection: Mapping[str, Any]) -> Destination:
        """Say where it leads."""
        return destination(connection)

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[PostgresqlSession]:
        """Connect."""
        import asyncpg

        settings = read(connection, PostgresqlConnection, "connection")
        context: ssl.SSLContext | bool = tls_context(settings.tls, settings.ca) or False
        try:
            link = await asyncpg.connect(
                host=settings.host,
                port=settings.port,
                user=settings.username,
                password=settings.password,
                database=settings.database,
                ssl=context,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                statement_cache_size=0,
                server_settings={
                    "application_name": "keyturn-leases",
                    "statement_timeout": f"{int(COMMAND_SECONDS * 1000)}",
                    "lock_timeout": f"{int(COMMAND_SECONDS * 1000)}",
                    "idle_in_transaction_session_timeout": f"{int(STILL_SECONDS * 1000)}",
                },
            )
        except (OSError, UnicodeError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _failure(error, settings.password) from None
        try:
            yield PostgresqlSession(link, settings)
        finally:
            link.terminate()


class PostgresqlSession:
    """One connection."""

    def __init__(self, link: Any, settings: PostgresqlConnection) -> None:  # noqa: ANN401 -- asyncpg has no types
        """Use a connection that is open."""
        self._link = link
        self._settings = settings

    async def create(self, role: Mapping[str, Any], account: NewAccount, deadline: Deadline) -> dict[str, str]:
        """Make the role, all of its statements or none."""
        kept = read(role, PostgresqlRole, "config")
        password = account.password.reveal()
        values = {
            "name": account.name,
            "password": password if kept.plain_password else scram_verifier(account.password, random_bytes(16)),
            "expiration": rfc3339(account.expires_at),
        }
        secrets = (self._settings.password, password, values["password"])
        with _translated(*secrets):
            deadline.check()
            async with self._link.transaction():
                await self._run(kept.creation, values)
                deadline.check()
        return {}

    async def extend(self, role: Mapping[str, Any], name: str, expires_at: float) -> None:
        """Move the time until which the role may log in."""
        kept = read(role, PostgresqlRole, "config")
        with _translated(self._settings.password):
            async with self._link.transaction():
                await self._run(kept.renewal, {"name": name, "expiration": rfc3339(expires_at)})

    async def drop(self, role: Mapping[str, Any], name: str) -> None:
        """Take the role's login, end its sessions, and drop it with what it holds."""
        with _translated(self._settings.password):
            if not await self._exists(name):
                return
            kept = read(role, PostgresqlRole, "config")
            if kept.revocation:
                async with self._link.transaction():
                    await self._run(kept.revocation, {"name": name})
                if await self._exists(name):
                    raise ProviderError("the statements of revocation left the role in place")
                return
            quoted = render("{{name}}", {"name": name}, name_quote='"')
            # On its own first: a session that begins after this is refused, so that the cut gets all of them.
            await self._link.execute(f"ALTER ROLE {quoted} NOLOGIN")
            if not await self._link.fetchval(_HOLDS, name):
                await self._link.execute(f"GRANT {quoted} TO CURRENT_USER")
            await self._link.fetch(_CUT, name)
            async with self._link.transaction():
                await self._link.execute(f"REASSIGN OWNED BY {quoted} TO CURRENT_USER")
                await self._link.execute(f"DROP OWNED BY {quoted}")
                await self._link.execute(f"DROP ROLE {quoted}")

    async def exists(self, name: str) -> bool:
        """Tell whether there is such a role."""
        with _translated(self._settings.password):
            return await self._exists(name)

    async def check(self) -> None:
        """Tell whether roles may be made."""
        with _translated(self._settings.password):
            may = await self._link.fetchval(
                "SELECT rolsuper OR rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user"
            )
        if not may:
            raise ProviderError("the user may not create roles; give it CREATEROLE")

    async def _exists(self, name: str) -> bool:
        return bool(await self._link.fetchval(_EXISTS, name))

    async def _run(self, statements: Sequence[str], values: Mapping[str, str]) -> None:
        for statement in statements:
            await self._link.execute(render(statement, values, name_quote='"'))


def scram_verifier(password: Secret, salt: bytes) -> str:
    """Return what PostgreSQL stores for a password (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.reveal_bytes(), salt, _ITERATIONS)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    one, two, three = (base64.b64encode(part).decode() for part in (salt, client, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{one}${two}:{three}"


class _translated:  # noqa: N801 -- used as a statement
    def __init__(self, *secrets: str) -> None:
        self._secrets = secrets

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import asyncpg

        if isinstance(error, OSError | TimeoutError | asyncpg.PostgresError | asyncpg.InterfaceError):
            raise _failure(error, *self._secrets) from None


def _failure(error: BaseException, *secrets: str) -> ProviderError:
    if isinstance(error, TimeoutError):
        return ProviderError("PostgreSQL did not answer in time")
    state = getattr(error, "sqlstate", None)
    said = public_error(str(error) or type(error).__name__, secrets)
    return ProviderError(f"PostgreSQL: {said} ({state})" if state else f"PostgreSQL: {said}")
