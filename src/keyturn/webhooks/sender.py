"""One attempt: a POST over a connection of its own, pinned to an address that the guard has checked.

    resolve the name -> check every answer -> connect to one of them -> TLS for the name -> POST -> read a little

There is no proxy, no redirect, no cookie and no connection that outlives the attempt, so each attempt is checked anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpcore

from keyturn.errors import InputError
from keyturn.kernel.clock import boottime
from keyturn.webhooks.guard import GuardError, Network, check_answers, parse_url
from keyturn.webhooks.model import Answer
from keyturn.webhooks.rules import excerpt

if TYPE_CHECKING:
    from keyturn.webhooks.guard import Target

ATTEMPT_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 5.0
ADDRESSES_TRIED_MAX: Final = 3
BODY_BYTES_MAX: Final = 4096
RESOLVING_MAX: Final = 64


class Resolver(Protocol):
    """Turns a name into addresses."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return every address of the name; raises OSError."""
        ...


class Sender(Protocol):
    """Sends one message."""

    async def send(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """POST the message and say what came of it; never raises for what the other side does."""
        ...


class SystemResolver:
    """Asks the system, in threads of its own: a slow name server holds up neither the loop nor a stop."""

    def __init__(self) -> None:
        """Start no thread before the first name."""
        self._places = asyncio.Semaphore(RESOLVING_MAX)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """See Resolver."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def ended(found: list[str] | Exception) -> None:
            # Only now: who gave up waiting leaves a thread behind that is still under way.
            self._places.release()
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def ask() -> None:
            found: list[str] | Exception
            try:
                asked = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
                found = [str(one[4][0]) for one in asked]
            except (OSError, UnicodeError) as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(ended, found)

        await self._places.acquire()
        threading.Thread(target=ask, name="webhook-resolver", daemon=True).start()
        return await answer


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to a checked address of the name that is asked for, and to no other."""

    def __init__(self, scheme: str, allowed: Sequence[Network], resolver: Resolver) -> None:
        """Resolve with `resolver`."""
        self._scheme = scheme
        self._allowed = allowed
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the signature of the base class
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check and connect; raises GuardError, or httpcore's ConnectError."""
        try:
            answers = await self._resolver(host, port)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("the name could not be resolved") from None
        addresses = check_answers(answers, scheme=self._scheme, allowed=self._allowed)
        tried = addresses[:ADDRESSES_TRIED_MAX]
        for address in tried[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._network.connect_tcp(tried[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 -- the signature of the base class
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 -- the signature of the base class
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 -- the signature of the base class
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no endpoint is a socket of this machine."""
        raise GuardError("a Unix socket may not be talked to")

    async def sleep(self, seconds: float) -> None:
        """See the base class."""
        await self._network.sleep(seconds)


class HttpSender:
    """Sends over the network."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        """Talk to the internet and to `allowed` networks; the rest replaces the defaults."""
        self._allowed = tuple(allowed)
        self._resolver: Resolver = resolver or SystemResolver()
        self._tls = tls
        self._seconds = seconds

    async def send(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """See Sender."""
        begun = boottime()
        status: int | None = None
        shown: str | None = None
        retry_after: str | None = None
        error: str | None = None
        try:
            target = parse_url(url, self._allowed)
            async with asyncio.timeout(self._seconds):
                status, retry_after, read = await self._post(target, headers, body)
            shown = excerpt(read)
            error = None if 200 <= status < 300 else _fault(status)
        except InputError as refused:
            error = f"refused: {refused.message}"
        except GuardError as refused:
            error = f"refused: {refused}"
        except (TimeoutError, httpcore.TimeoutException):
            error = f"no answer within {self._seconds:g} s"
        except httpcore.ConnectError as failed:
            error = _connect_fault(failed)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as failed:
            error = f"the connection failed: {type(failed).__name__}"
        except Exception as failed:  # noqa: BLE001 -- whatever an answer provokes is this attempt's failure alone
            error = f"the attempt failed: {type(failed).__name__}"
        return Answer(round((boottime() - begun) * 1000), status, error, shown, retry_after)

    async def _post(
        self, target: Target, headers: Sequence[tuple[str, str]], body: bytes
    ) -> tuple[int, str | None, bytes]:
        backend = PinnedBackend(target.scheme, self._allowed, self._resolver)
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._context() if target.scheme == "https" else None,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=backend,
        )
        limits = {"connect": CONNECT_SECONDS, "read": self._seconds, "write": self._seconds, "pool": self._seconds}
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        async with (
            pool,
            pool.stream(
                "POST",
                url,
                headers=[("Host", _host(target)), *headers, ("Content-Length", str(len(body)))],
                content=body,
                extensions={"timeout": limits},
            ) as response,
        ):
            retry_after = next((v.decode("latin-1") for n, v in response.headers if n.lower() == b"retry-after"), None)
            return response.status, retry_after, await _beginning(response)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            import httpx

            self._tls = httpx.create_ssl_context()
        return self._tls


async def _beginning(response: httpcore.Response) -> bytes:
    """Read the beginning of an answer; what is wrong with the rest does not undo its status."""
    read = b""
    with contextlib.suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        async for chunk in response.aiter_stream():
            read += chunk
            if len(read) >= BODY_BYTES_MAX:
                break
    return read[:BODY_BYTES_MAX]


def _host(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == {"https": 443, "http": 80}[target.scheme] else f"{host}:{target.port}"


def _fault(status: int) -> str:
    return f"answered {status}, a redirect, which is not followed" if 300 <= status < 400 else f"answered {status}"


def _connect_fault(failed: httpcore.ConnectError) -> str:
    cause: BaseException | None = failed
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"[:200]
        if isinstance(cause, ssl.SSLError):
            return "TLS could not be set up"
        cause = cause.__cause__ or cause.__context__
    return "the name could not be resolved" if "resolved" in str(failed) else "the connection was refused"
