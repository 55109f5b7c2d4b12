"""Redis and Valkey: each account is an ACL user.

The server gets the SHA-256 of the password, so that MONITOR and its slow log hold none.  Users live in the memory of
one server: one that restarts without an ACL file has forgotten them, which ends them early and never late.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from keyturn.errors import InputError
from keyturn.leases.connectors.settings import Host, Port, Tls, Word, destination, read, tls_context
from keyturn.leases.ports import Deadline, Destination, NewAccount, ProviderError
from keyturn.leases.rules import public_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

CONNECT_SECONDS: Final = 8.0
COMMAND_SECONDS: Final = 10.0
_OURS: Final = frozenset({"on", "off", "nopass", "reset", "resetpass", "sanitize-payload"})

Rule = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+(?!\n)$")]


class RedisConnection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the server is reached."""

    host: Host
    port: Port = 6379
    username: Word | None = None
    password: Annotated[str, Meta(max_length=1024)] = ""
    tls: Tls = "verify"
    ca: str | None = None


class RedisRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an account may do: ACL rules, such as `~cache:*` and `+@read`."""

    rules: Annotated[tuple[Rule, ...], Meta(min_length=1, max_length=64)]


class RedisConnector:
    """Makes ACL users of a Redis or Valkey server."""

    renewable = True
    revocable = True
    seconds_min = 1
    secret_settings = frozenset({"password"})

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings of a connection."""
        settings = read(given, RedisConnection, "connection")
        tls_context(settings.tls, settings.ca)
        return msgspec.structs.asdict(settings)

    def borrows(self, connection: Mapping[str, Any]) -> bool:  # noqa: ARG002 -- the port
        """Say no: it logs in as the user that was given."""
        return False

    def read_role(self, given: Mapping[str, Any], ttl_seconds: int, max_ttl_seconds: int) -> dict[str, Any]:  # noqa: ARG002 -- any time will do
        """Check the rules of a role: those about passwords and about being on are ours."""
        role = read(given, RedisRole, "config")
        for number, rule in enumerate(role.rules):
            if rule[0] in "<>#!" or rule.lower() in _OURS:
                raise InputError(
                    "expected a rule about commands, keys or channels, found one about the password or the state",
                    field=f"config.rules[{number}]",
                )
        return msgspec.structs.asdict(role)

    def destination(self, connection: Mapping[str, Any]) -> Destination:
        """Say where it leads."""
        return destination(connection)

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[RedisSession]:
        """Connect."""
        from redis.asyncio import Redis, RedisError
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        settings = read(connection, RedisConnection, "connection")
        given: dict[str, Any] = {"ssl": False}
        if settings.tls != "disable":
            checks = "required" if settings.tls == "verify" else "none"
            given = {
                "ssl": True,
                "ssl_cert_reqs": checks,
                "ssl_check_hostname": settings.tls == "verify",
                "ssl_ca_data": settings.ca,
            }
        link = Redis(
            host=settings.host,
            port=settings.port,
            username=settings.username,
            password=settings.password or None,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=COMMAND_SECONDS,
            # A command that is sent twice could make an account after its time.
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
            decode_responses=True,
            **given,
        )
        try:
            try:
                await link.ping()
            except (RedisError, OSError, TimeoutError) as error:
                raise _failure(error, settings.password) from None
            yield RedisSession(link, settings)
        finally:
            await link.aclose()


class RedisSession:
    """One connection."""

    def __init__(self, link: Any, settings: RedisConnection) -> None:  # noqa: ANN401 -- its types differ by version
        """Use a connection that is open."""
        self._link = link
        self._settings = settings

    async def create(self, role: Mapping[str, Any], account: NewAccount, deadline: Deadline) -> dict[str, str]:
        """Make the user in one command."""
        kept = read(role, RedisRole, "config")
        password = account.password
        digest = hashlib.sha256(password.reveal_bytes()).hexdigest()
        deadline.check()
        await self._ask("SETUSER", account.name, "reset", "on", f"#{digest}", *kept.rules, secret=password.reveal())
        return {}

    async def extend(self, role: Mapping[str, Any], name: str, expires_at: float) -> None:
        """Do nothing: the server ends no account by itself."""

    async def drop(self, role: Mapping[str, Any], name: str) -> None:  # noqa: ARG002 -- the port
        """Drop the user, which cuts its connections."""
        await self._ask("DELUSER", name)

    async def exists(self, name: str) -> bool:
        """Tell whether there is such a user."""
        return name in await self._ask("USERS")

    async def check(self) -> None:
        """Tell whether the commands about users are allowed."""
        await self._ask("USERS")

    async def _ask(self, *words: str, secret: str = "") -> Any:  # noqa: ANN401 -- any reply
        from redis.asyncio import RedisError

        try:
            return await self._link.execute_command("ACL", *words)
        except (RedisError, OSError, TimeoutError) as error:
            raise _failure(error, self._settings.password, secret) from None


def _failure(error: BaseException, *secrets: str) -> ProviderError:
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
        return ProviderError("Redis did not answer in time")
    return ProviderError(f"Redis: {public_error(str(error) or type(error).__name__, secrets)}")
