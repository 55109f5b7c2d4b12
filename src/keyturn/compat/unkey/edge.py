"""The ASGI side of the Unkey-compatible edge.

    POST /v2/<operation>  ->  bearer token -> JSON body -> operation -> {"meta": {"requestId": …}, "data": …}
                                                                  `-> {"meta": …, "error": {detail status title type}}

The operation is looked up by name; every other method or path of `/v2/` is answered as one that does not exist.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.access.caller import Credentials
from keyturn.compat.unkey.wire import Page
from keyturn.errors import InputError, KeyturnError, not_found
from keyturn.http import problems
from keyturn.http.body import decode, decoder_for, read_within, require_json, require_length_within
from keyturn.http.edge import scope_request_id
from keyturn.http.peer import bearer_token, client_ip, header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from keyturn.compat.unkey.operations import Work
    from keyturn.http.lanes import Receive, Scope, Send

PREFIX: Final = "/v2/"
BODY_BYTES_MAX: Final = 64 * 1024
_FIXED: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    request_id: str


class _Answer(msgspec.Struct, frozen=True):
    meta: _Meta
    data: object


class _PageAnswer(msgspec.Struct, frozen=True):
    meta: _Meta
    data: object
    pagination: object


class _Fault(msgspec.Struct, frozen=True):
    location: str
    message: str
    fix: str


class _Error(msgspec.Struct, frozen=True, omit_defaults=True):
    detail: str
    status: int
    title: str
    type: str
    errors: tuple[_Fault, ...] | None = None


class _Refusal(msgspec.Struct, frozen=True):
    meta: _Meta
    error: _Error


class UnkeyEdge:
    """The ASGI application for everything below `/v2/`."""

    def __init__(
        self,
        operations: Mapping[str, Work],
        *,
        trusted_proxies: tuple[Any, ...] = (),
        draining: asyncio.Event | None = None,
    ) -> None:
        """Serve `operations`, by the name that stands behind the prefix."""
        self._operations = operations
        self._trusted_proxies = trusted_proxies
        self._draining = asyncio.Event() if draining is None else draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request_id = scope_request_id(scope)
        try:
            answer = await self._answer(scope, receive)
            if isinstance(answer, Page):
                body = msgspec.json.encode(_PageAnswer(_Meta(request_id), answer.items, answer.pagination))
            else:
                body = msgspec.json.encode(_Answer(_Meta(request_id), answer))
            await self._send(200, body, b"application/json", scope, send)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of this edge: logged, and answered in its shape
            await self._refuse(error, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> object:
        name = scope["path"].removeprefix(PREFIX)
        work = self._operations.get(name)
        if work is None or scope["method"] != "POST":
            raise not_found("operation", name[:64])
        credentials = Credentials(
            bearer_token(scope["headers"]), client_ip(scope, self._trusted_proxies), scope_request_id(scope)
        )
        headers = scope["headers"]
        require_json((header(headers, b"content-type") or b"").decode("latin-1"))
        require_length_within((header(headers, b"content-length") or b"").decode("latin-1"), BODY_BYTES_MAX)
        raw = await read_within(_chunks(receive), BODY_BYTES_MAX)
        kind, run = work
        decoder: msgspec.json.Decoder[Any] = decoder_for(kind)  # type: ignore[arg-type] # a class is hashable
        return await run(credentials, decode(decoder, raw))

    async def _refuse(self, error: Exception, scope: Scope, send: Send) -> None:
        request_id = scope_request_id(scope)
        problems.log_failure(error, request_id, method=scope["method"], path=scope["path"])
        problem = problems.problem_of(error, request_id)
        # It knows no 415 or 422; what it does know is decoded by its clients into an error of their own.
        status = 400 if problem.status in {415, 422} else problem.status
        detail = problem.detail or problem.title
        faults = None
        if status == 400:
            where = f"body.{error.field}" if isinstance(error, InputError) and error.field else "body"
            faults = (_Fault(where, detail, (error.hint if isinstance(error, KeyturnError) else None) or ""),)
        found = _Error(detail, status, problem.title, problem.type, faults)
        given = problems.headers_of(error) if isinstance(error, KeyturnError) else {}
        media = b"application/problem+json" if status == 429 else b"application/json"
        body = msgspec.json.encode(_Refusal(_Meta(request_id), found))
        added = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
        await self._send(status, body, media, scope, send, added)

    async def _send(
        self,
        status: int,
        body: bytes,
        media: bytes,
        scope: Scope,
        send: Send,
        added: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        headers = [
            (b"content-type", media),
            *_FIXED,
            (b"x-request-id", scope_request_id(scope).encode()),
            (b"content-length", b"%d" % len(body)),
            *(added or ()),
        ]
        if self._draining.is_set() and scope.get("http_version", "1.1").startswith("1"):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
