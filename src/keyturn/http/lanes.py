"""The gate in front of everything: sends the hot calls to lanes of their own, all else to the router.

The lanes of verify, of forward authentication and of reads of secrets are handed their calls untouched.  Every other
request gets, here and once: a request id that is echoed, security headers, a refusal of targets that are not clean
text, HEAD and OPTIONS for every route, a count of its outcome, and `Connection: close` while the server stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from keyturn.errors import KeyturnError
from keyturn.http import problems
from keyturn.http.edge import scope_request_id
from keyturn.http.encoded_names import leave_encoded
from keyturn.http.forward_auth import dialect_of
from keyturn.http.peer import require_clean_target
from keyturn.http.secret_lane import is_read
from keyturn.kernel.clock import boottime

if TYPE_CHECKING:
    import asyncio

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Observe = Callable[[str, str, int, float], None]

VERIFY_PATH: Final = "/api/v1/verify"
_SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")
_NOTHING_LOADED: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NOT_STORED: Final = (b"cache-control", b"no-store")
_KNOWN_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
# A method that no route can have: the router's refusal then lists what the path does have.
_ASK_ALLOWED: Final = "KEYTURN-ALLOWED"


def security_headers(*, over_tls: bool) -> tuple[tuple[bytes, bytes], ...]:
    """Return what every response carries whatever it is about."""
    return (*_SECURITY, _STRICT_TRANSPORT) if over_tls else _SECURITY


def standard_headers(*, over_tls: bool) -> tuple[tuple[bytes, bytes], ...]:
    """Return what a response of an interface carries, for a mounted application that sends its own."""
    return (*security_headers(over_tls=over_tls), _NOTHING_LOADED, _NOT_STORED)


class Gate:
    """The ASGI application that the server runs."""

    def __init__(
        self,
        router: AsgiApp,
        verify: AsgiApp | None,
        *,
        forward_auth: AsgiApp | None = None,
        secrets: AsgiApp | None = None,
        mounted: Mapping[str, AsgiApp] | None = None,
        draining: asyncio.Event,
        observe: Observe | None = None,
        over_tls: bool = False,
    ) -> None:
        """Join the lanes; `observe(method, route, status, seconds)` is told of every routed request.

        `mounted` are applications that answer everything below a path of one segment, such as `/v2/`.
        """
        self._router = router
        self._verify = verify
        self._forward_auth = forward_auth
        self._secrets = secrets
        self._mounted = dict(mounted or {})
        self._draining = draining
        self._observe = observe
        self._headers = security_headers(over_tls=over_tls)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection event."""
        # Not a coroutine itself: the hot lane should not pay for one more.
        if self._verify is not None and scope.get("path") == VERIFY_PATH and scope.get("method") == "POST":
            return self._verify(scope, receive, send)
        if self._forward_auth is not None and scope.get("path", "").startswith("/auth/") and dialect_of(scope["path"]):
            return self._forward_auth(scope, receive, send)
        if scope["type"] != "http":
            return self._router(scope, receive, send)
        if self._secrets is not None and is_read(scope):
            return self._secrets(scope, receive, send)
        if self._mounted:
            path: str = scope["path"]
            application = self._mounted.get(path[: path.find("/", 1) + 1])
            if application is not None:
                return application(scope, receive, send)
        return self._route(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(self, scope, send)
        method = scope["method"]
        if method == "HEAD":
            scope["method"] = "GET"
        elif method == "OPTIONS":
            scope["method"] = _ASK_ALLOWED
        try:
            require_clean_target(scope)
        except KeyturnError as error:
            await _send_problem(error, scope, answer)
        else:
            leave_encoded(scope)
            await self._router(scope, receive, answer)
        if self._observe is not None:
            shown = method if method in _KNOWN_METHODS else "other"
            route = str(scope.get("path_template") or "unknown")
            self._observe(shown, route, answer.status, boottime() - answer.started)

    def response_headers(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Add what every response carries, unless the route said otherwise."""
        names = {name.lower() for name, _ in headers}
        added = [(b"x-request-id", scope_request_id(scope).encode()), *self._headers]
        added += [one for one in (_NOTHING_LOADED, _NOT_STORED) if one[0] not in names]
        if self._draining.is_set() and scope.get("http_version", "1.1").startswith("1"):
            added.append((b"connection", b"close"))
        return [*headers, *added]


class _Answer:
    """The `send` of one routed request."""

    __slots__ = ("_gate", "_method", "_scope", "_send", "started", "status")

    def __init__(self, gate: Gate, scope: Scope, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._send = send
        self._method: str = scope["method"]
        self.status = 500
        self.started = boottime()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            message["headers"] = self._gate.response_headers(self._scope, self._allowing(headers))
            message["status"] = self.status
        elif message["type"] == "http.response.body" and (self._method == "HEAD" or self.status == 204):
            message["body"] = b""
        await self._send(message)

    def _allowing(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if self.status != 405:
            return headers
        allowed = {method.strip() for name, value in headers if name == b"allow" for method in value.split(b",")}
        if self._scope["path"] == VERIFY_PATH:
            allowed = {b"POST", b"OPTIONS"}
        if b"GET" in allowed:
            allowed.add(b"HEAD")
        listed = (b"allow", b", ".join(sorted(allowed)))
        if self._method == "OPTIONS":
            self.status = 204
            return [listed]
        return [*((name, value) for name, value in headers if name != b"allow"), listed]


async def _send_problem(error: KeyturnError, scope: Scope, send: Send) -> None:
    problem = problems.problem_of(error, scope_request_id(scope))
    body = problems.encode_problem(problem)
    headers = [(b"content-type", problems.MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
