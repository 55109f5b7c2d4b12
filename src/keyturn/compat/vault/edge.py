"""The ASGI side of the Vault-compatible surface: everything below `/v1/`.

    path, query, token -> route -> JSON body -> function -> envelope -> wrapped, when X-Vault-Wrap-TTL asks for it
                                                    `-> {"errors": […]}

Metrics, the request's id and the security headers are as on every other route.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from keyturn.compat.vault import durations
from keyturn.compat.vault.answers import Answer, RefusedAs, error_body, refusal
from keyturn.compat.vault.asking import (
    Ask,
    is_listed,
    path_of,
    query_of,
    text_header,
    token_of,
    verb_of,
)
from keyturn.errors import InputError, KeyturnError, TooLargeError, UnauthenticatedError, UnsupportedError
from keyturn.http import problems
from keyturn.http.body import BULK_BYTES_MAX, decode, decoder_for, printable, read_within, require_length_within
from keyturn.http.edge import scope_request_id
from keyturn.http.lanes import standard_headers
from keyturn.http.peer import client_ip, header
from keyturn.kernel.clock import boottime
from keyturn.wire.wraps import TTL_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from keyturn.compat.vault.routing import Route, Routes
    from keyturn.http.lanes import Observe, Receive, Scope, Send

OPEN_BODY_BYTES_MAX: Final = 64 * 1024
"""Bound of a body that comes without a token."""
_MERGE_PATCH: Final = "application/merge-patch+json"
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "LIST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Wrapping(Protocol):
    """Puts an answer aside for whoever holds a token; implemented over the wraps of the vault."""

    async def wrap_answer(self, ask: Ask, answer: Answer) -> Answer:
        """Return the answer that tells the token instead."""
        ...


class Namespaces(Protocol):
    """Knows which workspace a token is of; implemented by `places`."""

    async def require_namespace(self, ask: Ask) -> None:
        """Raise the refusal of a namespace that is not the caller's workspace."""
        ...


class VaultEdge:
    """The ASGI application for everything below `/v1/`."""

    def __init__(
        self,
        routes: Routes,
        wrapping: Wrapping,
        places: Namespaces,
        *,
        trusted_proxies: tuple[Any, ...] = (),
        draining: asyncio.Event | None = None,
        observe: Observe | None = None,
        refused: Callable[[str | None], None] | None = None,
        over_tls: bool = False,
    ) -> None:
        """Serve `routes`; `refused(ip)` counts a request that came without the token it needs."""
        self._routes = routes
        self._wrapping = wrapping
        self._places = places
        self._trusted_proxies = trusted_proxies
        self._draining = asyncio.Event() if draining is None else draining
        self._observe = observe
        self._refused = refused
        self._headers = standard_headers(over_tls=over_tls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = boottime()
        request_id = scope_request_id(scope)
        route: Route | None = None
        added: list[tuple[bytes, bytes]] = []
        try:
            ask, route = self._understand(scope)
            answer = await self._answer(ask, route, scope, receive)
            status, body = answer.status, answer.body(request_id)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of this edge: logged, and answered in its shape
            status, body, added = self._refusal(error, scope)
            route = error.route if isinstance(error, _NotServed) else route
        await self._send(status, body, scope, send, added)
        if self._observe is not None:
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
            self._observe(method, "unknown" if route is None else route.label, status, boottime() - started)

    def _understand(self, scope: Scope) -> tuple[Ask, Route]:
        path = path_of(scope)
        found = self._routes.find(path)
        if found is None:
            raise RefusedAs(404, f"no handler for route {printable(path)!r}")
        route, parts = found
        query = query_of(scope)
        verb = verb_of(scope["method"], query)
        if verb is None or verb not in route.works:
            raise _NotServed(route)
        ask = Ask(
            verb=verb,
            path=path,
            parts=parts,
            query=query,
            body={},
            token=token_of(scope),
            ip=client_ip(scope, self._trusted_proxies),
            request_id=scope_request_id(scope),
            user_agent=text_header(scope, b"user-agent"),
            namespace=_namespace(scope),
            headers=tuple(scope["headers"]),
            wrap_seconds=_wrap_seconds(scope),
            proxied=is_listed(scope, self._trusted_proxies),
        )
        return ask, route

    async def _answer(self, ask: Ask, route: Route, scope: Scope, receive: Receive) -> Answer:
        if ask.verb in {"write", "patch"}:
            if ask.verb == "patch":
                _require_merge_patch(scope)
            ask = replace(ask, body=await _read_body(ask, scope, receive))
        if ask.namespace is not None and not route.is_open:
            await self._places.require_namespace(ask)
        answer = await route.works[ask.verb](ask)
        if ask.wrap_seconds and answer.is_wrappable:
            return await self._wrapping.wrap_answer(ask, answer)
        return answer

    def _refusal(self, error: Exception, scope: Scope) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        request_id = scope_request_id(scope)
        status, messages = refusal(error)
        if not isinstance(error, RefusedAs):
            problems.log_failure(error, request_id, method=scope["method"], path=scope["path"])
        added: list[tuple[bytes, bytes]] = []
        if isinstance(error, KeyturnError):
            given = problems.headers_of(error)
            added = [
                (name.lower().encode(), value.encode()) for name, value in given.items() if name != "WWW-Authenticate"
            ]
        if isinstance(error, _NotServed):
            added.append((b"allow", error.route.methods.encode()))
        if isinstance(error, TooLargeError):
            added.append((b"connection", b"close"))
        if isinstance(error, UnauthenticatedError) and token_of(scope) is None and self._refused is not None:
            self._refused(client_ip(scope, self._trusted_proxies))
        return status, error_body(messages), added

    async def _send(self, status: int, body: bytes, scope: Scope, send: Send, added: list[tuple[bytes, bytes]]) -> None:
        headers = [*self._headers, (b"x-request-id", scope_request_id(scope).encode()), *added]
        if status != 204:
            # Exactly so: clients compare it as it is.
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                *headers,
            ]
        draining = self._draining.is_set() and scope.get("http_version", "1.1").startswith("1")
        if draining and (b"connection", b"close") not in headers:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class _NotServed(RefusedAs):
    """The path is there and does not have that method."""

    def __init__(self, route: Route) -> None:
        super().__init__(405, "unsupported operation")
        self.route = route


def _namespace(scope: Scope) -> str | None:
    given = text_header(scope, b"x-vault-namespace")
    return None if given is None else given.strip("/") or None


def _wrap_seconds(scope: Scope) -> int:
    given = durations.seconds(text_header(scope, b"x-vault-wrap-ttl"), "X-Vault-Wrap-TTL") or 0
    if given > TTL_SECONDS_MAX:
        raise InputError(f"X-Vault-Wrap-TTL: expected at most {TTL_SECONDS_MAX} seconds", field="X-Vault-Wrap-TTL")
    return given


def _require_merge_patch(scope: Scope) -> None:
    given = (text_header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if given != _MERGE_PATCH:
        raise UnsupportedError(f"PATCH requires Content-Type of {_MERGE_PATCH}")


async def _read_body(ask: Ask, scope: Scope, receive: Receive) -> dict[str, Any]:
    bytes_max = OPEN_BODY_BYTES_MAX if ask.token is None else BULK_BYTES_MAX
    require_length_within((header(scope["headers"], b"content-length") or b"").decode("latin-1"), bytes_max)
    raw = await read_within(_chunks(receive), bytes_max)
    if not raw.strip():
        return {}
    # Whatever it is declared as: curl calls JSON a form, and the Go client calls it nothing.
    body = decode(decoder_for(Any), raw)
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise InputError("the body is not a JSON object", hint="send one JSON object")
    return body


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
