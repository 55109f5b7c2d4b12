"""What wires logins together, and how issuers and clusters are asked: over connections that the guard has checked."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpcore

from keyturn.access.authorities import LOGIN_TAG, Authorities
from keyturn.errors import InputError
from keyturn.logins.jwks import KeySets
from keyturn.logins.ports import Fetched, FetchError
from keyturn.logins.service import LoginService
from keyturn.logins.tokens import LoginTokens
from keyturn.webhooks.guard import GuardError, parse_url
from keyturn.webhooks.sender import PinnedBackend, Resolver, SystemResolver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Door, UnauthenticatedSink
    from keyturn.access.ports import TokenAuthority
    from keyturn.config import Settings
    from keyturn.kernel.secret import Secret
    from keyturn.storage.keyring import Keyring
    from keyturn.webhooks.guard import Network, Target

SETTING: Final = "KEYTURN_LOGIN_ALLOW"
REQUEST_SECONDS: Final = 8.0
CONNECT_SECONDS: Final = 4.0
REQUESTS_MAX: Final = 16
"""Requests to issuers and clusters at once; the others wait."""


@dataclass(frozen=True, slots=True)
class LoginParts:
    """The services of logins, by name."""

    logins: LoginService

    def services(self) -> dict[str, object]:
        """What routes may ask for by name."""
        return {"logins": self.logins}


def all_tokens(keyring: Keyring, management: TokenAuthority) -> Authorities:
    """Prove management tokens and login tokens, each by its tag."""
    return Authorities(management, {LOGIN_TAG: LoginTokens(keyring)})


def open_logins(settings: Settings, door: Door, keyring: Keyring, failures: UnauthenticatedSink) -> LoginParts:
    """Wire the services of logins."""
    fetcher = GuardedFetcher(settings.login_allow)
    key_sets = KeySets(fetcher, settings.data, door.database.clock.boottime)
    return LoginParts(LoginService(door, keyring, LoginTokens(keyring), fetcher, key_sets, failures))


class GuardedFetcher:
    """Asks issuers and clusters; implements the port of logins.

    There is no proxy, no redirect, no cookie and no connection that outlives the request; see `keyturn.webhooks.guard`.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        setting: str = SETTING,
        resolver: Resolver | None = None,
    ) -> None:
        """Talk to the internet and to `allowed` networks, which `setting` lists."""
        self._setting = setting
        self._allowed = tuple(allowed)
        self._resolver: Resolver = resolver or SystemResolver()
        self._places = asyncio.Semaphore(REQUESTS_MAX)

    def check(self, url: str) -> None:
        """Raise InputError for an address that could never be asked."""
        parse_url(url, self._allowed, setting=self._setting)

    async def get(self, url: str, *, ca_pem: str | None, bytes_max: int) -> Fetched:
        """See Fetcher."""
        return await self._ask("GET", url, [("Accept", "application/json")], None, ca_pem, bytes_max)

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        bearer: Secret,
        ca_pem: str | None,
        bytes_max: int,
    ) -> Fetched:
        """See Fetcher."""
        sent = [*headers, ("Authorization", f"Bearer {bearer.reveal()}"), ("Content-Length", str(len(body)))]
        return await self._ask("POST", url, sent, body, ca_pem, bytes_max)

    async def _ask(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes | None,
        ca_pem: str | None,
        bytes_max: int,
    ) -> Fetched:
        try:
            async with asyncio.timeout(REQUEST_SECONDS), self._places:
                target = parse_url(url, self._allowed, setting=self._setting)
                return await self._asked(method, target, headers, body, ca_pem, bytes_max)
        except InputError as refused:
            raise FetchError(f"refused: {refused.message}") from None
        except GuardError as refused:
            raise FetchError(f"refused: {refused}") from None
        except (TimeoutError, httpcore.TimeoutException):
            raise FetchError(f"no answer within {REQUEST_SECONDS:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as failed:
            raise FetchError(f"the connection failed: {type(failed).__name__}") from None

    async def _asked(
        self,
        method: str,
        target: Target,
        headers: list[tuple[str, str]],
        body: bytes | None,
        ca_pem: str | None,
        bytes_max: int,
    ) -> Fetched:
        context = None
        if target.scheme == "https":
            context = ssl.create_default_context(cadata=ca_pem)
        pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=PinnedBackend(target.scheme, self._allowed, self._resolver),
        )
        limits = {
            "connect": CONNECT_SECONDS,
            "read": REQUEST_SECONDS,
            "write": REQUEST_SECONDS,
            "pool": REQUEST_SECONDS,
        }
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        asked = pool.stream(
            method, url, headers=[("Host", _host(target)), *headers], content=body, extensions={"timeout": limits}
        )
        async with pool, asked as response:
            read = b""
            async for chunk in response.aiter_stream():
                read += chunk
                if len(read) > bytes_max:
                    raise FetchError(f"answered more than {bytes_max} bytes")
            return Fetched(response.status, read)


def _host(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == {"https": 443, "http": 80}[target.scheme] else f"{host}:{target.port}"
