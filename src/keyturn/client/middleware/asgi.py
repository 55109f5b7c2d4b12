"""ASGI: Starlette, Litestar, Quart and whatever else speaks it.

    app = KeyturnMiddleware(app, verifier=Verifier(url, token), scopes="orders:read")

The verdict stands in `scope["state"]["keyturn"]` (Starlette: `request.state.keyturn`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

from keyturn.client.middleware.protection import Call, Protection, Question
from keyturn.errors import KeyturnError
from keyturn.wire.refusals import Refusal

if TYPE_CHECKING:
    from keyturn.client.model import Verification

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("keyturn.client")


class AsyncAsker:
    """Asks any kind of verifier from a coroutine; one that blocks on the network is asked in a thread."""

    def __init__(self, verifier: Any, protection: Protection) -> None:  # noqa: ANN401 -- three kinds, told apart here
        """Find out how the verifier is to be asked."""
        self._protection = protection
        self._verify = _awaited(getattr(verifier, "averify", None) or verifier.verify)
        self._release = _awaited(getattr(verifier, "arelease", None) or verifier.release)

    async def ask(self, call: Call) -> Verification | Refusal:
        """Return the verdict that admits, or the answer that refuses; never raises for a failure to verify."""
        question = self._protection.question(call)
        if not isinstance(question, Question):
            return question
        try:
            verdict: Verification = await self._verify(question.key, **question.call)
        except KeyturnError as error:
            _log.error("a key could not be verified: %s", error)
            return self._protection.failure()
        return self._protection.refusal(verdict) or verdict

    async def release(self, verification: Verification) -> None:
        """Give back the slots of a call that has ended; a failure leaves them to expire."""
        if not verification.slots:
            return
        try:
            await self._release(verification.slots)
        except KeyturnError as error:
            _log.warning("slots were not given back and will expire: %s", error)


class KeyturnMiddleware:
    """An ASGI application that lets only admitted requests through to another."""

    def __init__(self, app: AsgiApp, verifier: Any, **options: Any) -> None:  # noqa: ANN401 -- see AsyncAsker, Protection
        """Protect `app`; `options` are those of Protection."""
        self._app = app
        self._protection = Protection(**options)
        self._asker = AsyncAsker(verifier, self._protection)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] not in {"http", "websocket"} or self._protection.is_exempt(scope["path"]):
            await self._app(scope, receive, send)
            return
        found = await self._asker.ask(call_of(scope))
        if isinstance(found, Refusal):
            await _refuse(found, scope, receive, send)
            return
        scope.setdefault("state", {})["keyturn"] = found
        try:
            await self._app(scope, receive, _telling(found, send))
        finally:
            await self._asker.release(found)


def call_of(scope: Scope) -> Call:
    """Return what an ASGI scope tells of a request; a header that is repeated counts joined by commas."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    client = scope.get("client")
    raw: bytes | None = scope.get("raw_path")
    path = scope["path"] if raw is None else raw.decode("latin-1")
    return Call(scope.get("method", "GET"), path, headers, client[0] if client else None)


def _awaited(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return a call that is awaited; one that blocks runs in a thread."""
    return call if inspect.iscoroutinefunction(call) else partial(asyncio.to_thread, call)


def _telling(verification: Verification, send: Send) -> Send:
    """Add the RateLimit fields to an answer."""
    added = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in verification.headers()]
    if not added:
        return send

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return told


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    kind = "http"
    if scope["type"] == "websocket":
        await receive()  # the connect event
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": "API key refused"})
            return
        kind = "websocket.http"
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers]
    headers.append((b"content-length", b"%d" % len(refusal.body)))
    await send({"type": f"{kind}.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": refusal.body})
