"""The verify lane: `POST /api/v1/verify` as raw ASGI, in front of the router.

    body (bounded, timed) -> strict JSON -> bearer token -> VerifyService.verify_now -> answer
                                                             | None
                                                             `-> VerifyService.verify

The answer is 200 whatever the verdict, and 503 when nothing could be decided; how limits stand is also told in the
RateLimit fields.  A request that is not understood, or
that brings no valid bearer token, is answered by a problem.  When memory is enough nothing here is awaited but the
body and the sending.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.access.caller import Credentials
from keyturn.errors import BrokenInvariantError, InputError, KeyturnError, TooLargeError
from keyturn.http import problems
from keyturn.http.body import BODY_READ_SECONDS, decode, require_json, too_large
from keyturn.http.edge import scope_request_id
from keyturn.http.peer import bearer_token, client_ip
from keyturn.kernel.clock import boottime
from keyturn.wire.ratelimit_fields import POLICY, RETRY_AFTER, STANDING, fields
from keyturn.wire.verification import Code, VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from keyturn.http.lanes import Message, Receive, Scope, Send
    from keyturn.keys.verification import VerifyService
    from keyturn.wire.verification import VerifyResponse

BODY_BYTES_MAX: Final = 64 * 1024
LOOK_SECONDS: Final = 1.0
STARTS_MAX: Final = 1024

_JSON: Final = b"application/json"
_UNAVAILABLE: Final = Code.UNAVAILABLE.value
_decoder: Final = msgspec.json.Decoder(VerifyRequest)

_FIXED: Final = (
    (b"content-type", _JSON),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_FIELD_NAMES: Final = {name: name.lower().encode() for name in (POLICY, STANDING, RETRY_AFTER)}


class VerifyLane:
    """An ASGI application for one operation."""

    def __init__(
        self,
        service: VerifyService,
        *,
        trusted_proxies: tuple[Any, ...] = (),
        draining: asyncio.Event | None = None,
        observe: Callable[[str, float], None] | None = None,
        body_seconds: float = BODY_READ_SECONDS,
    ) -> None:
        """Answer with `service`; `observe(code, seconds)` is told of every verdict.

        A body that has not arrived after `body_seconds` is refused at the next look, a second later at most.
        """
        self._service = service
        self._trusted_proxies = trusted_proxies
        self._draining = asyncio.Event() if draining is None else draining
        self._observe = observe
        self._reading = _Reading(body_seconds)
        self._starts: dict[tuple[int, int, bool], Message] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # One coroutine on the way of a warm verification: each further one costs as much as a step of the decision.
        started = boottime()
        reading = self._reading
        try:
            content_type, expected, authorization = _read_headers(scope["headers"])
            if content_type != _JSON:
                require_json(content_type.decode("latin-1"))
            if authorization is None:
                bearer_token(())
            task = reading.begin(started)
            try:
                message = await receive()
                raw: bytes = message.get("body", b"")
                if len(raw) != expected:
                    raw = await _read_rest(receive, message, expected)
            except asyncio.CancelledError:
                reading.refuse_late(task)
                raise
            finally:
                reading.end(task)
            asked = decode(_decoder, raw)
            ip = client_ip(scope, self._trusted_proxies)
            answer = None
            if authorization is not None and authorization.startswith(b"Bearer "):
                answer = self._service.verify_now(authorization[7:], ip, asked)
            if answer is None:
                credentials = Credentials(bearer_token(scope["headers"]), ip, scope_request_id(scope))
                answer = await self._service.verify(credentials, asked)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of this lane: logged, and answered as a problem
            await self._refuse(error, scope, send)
            return
        code, body = answer.code, self._service.encode(answer)
        start = self._start(503 if code == _UNAVAILABLE else 200, len(body))
        if answer.limits is not None or answer.retry_after_seconds is not None:
            start = _with_fields(start, answer)
        await send(start)
        await send({"type": "http.response.body", "body": body})
        if self._observe is not None:
            self._observe(code, boottime() - started)

    def _start(self, status: int, length: int) -> Message:
        """Return the first message of an answer; there are few different ones, and they are never changed."""
        draining = self._draining.is_set()
        message = self._starts.get((status, length, draining))
        if message is None:
            headers = [*_FIXED, (b"content-length", b"%d" % length)]
            if draining:
                headers.append((b"connection", b"close"))
            if len(self._starts) >= STARTS_MAX:
                self._starts.clear()
            message = {"type": "http.response.start", "status": status, "headers": headers}
            self._starts[status, length, draining] = message
        return message

    async def _refuse(self, error: Exception, scope: Scope, send: Send) -> None:
        instance = scope_request_id(scope)
        problems.log_failure(error, instance, method=scope["method"], path=scope["path"])
        problem = problems.problem_of(error, instance)
        given = problems.headers_of(error) if isinstance(error, KeyturnError) else {}
        body = problems.encode_problem(problem)
        headers = [
            (b"content-type", problems.MEDIA_TYPE.encode()),
            *_FIXED[1:],
            (b"x-request-id", instance.encode()),
            (b"content-length", b"%d" % len(body)),
            *((name.lower().encode(), value.encode()) for name, value in given.items()),
        ]
        if self._draining.is_set() or isinstance(error, TooLargeError):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _with_fields(start: Message, answer: VerifyResponse) -> Message:
    """Return a first message that tells how limits stand; the one given is shared, and stays as it is."""
    told = [(_FIELD_NAMES[name], value.encode()) for name, value in fields(answer)]
    return {**start, "headers": [*start["headers"], *told]}


def _read_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int, bytes | None]:
    """Return Content-Type, Content-Length (-1 when it is not said) and Authorization.

    A repeated Authorization comes back empty: `bearer_token` refuses it.
    """
    content_type, expected, authorization = b"", -1, None
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length" and value.isdigit():
            expected = int(value[:20])
            if expected > BODY_BYTES_MAX:
                raise too_large(BODY_BYTES_MAX)
        elif name == b"authorization":
            authorization = value if authorization is None else b""
    return content_type, expected, authorization


async def _read_rest(receive: Receive, message: Any, expected: int) -> bytes:  # noqa: ANN401 -- an ASGI message
    """Read on until the body has its `expected` length, or the last message says that there is no more."""
    raw: bytes = message.get("body", b"")
    while message.get("more_body", False) and len(raw) != expected and len(raw) <= BODY_BYTES_MAX:
        message = await receive()
        raw += message.get("body", b"")
    if len(raw) > BODY_BYTES_MAX:
        raise too_large(BODY_BYTES_MAX)
    if message["type"] == "http.disconnect":
        # What has arrived may look whole, but nobody is there to be answered: nothing is charged or counted.
        raise InputError("the connection was closed before the body was whole", hint="send it again")
    return raw


class _Reading:
    """The bodies that are being read, and since when.

    One look a second at all of them takes the place of a timer for each, which would cost more than a verification.
    """

    __slots__ = ("_begun", "_late", "_looking", "_loop", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    def begin(self, at: float) -> asyncio.Task[Any]:
        """Take note that the current task reads; it is cancelled when that takes too long."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        # With its loop: finding that out is a system call each time.
        task = asyncio.current_task(self._loop)
        if task is None:
            raise BrokenInvariantError("a body is read outside of a task")
        self._begun[task] = at
        if not self._looking:
            self._looking = True
            self._loop.call_later(LOOK_SECONDS, self._look, self._loop)
        return task

    def refuse_late(self, task: asyncio.Task[Any]) -> None:
        """Raise InputError if it was this watch that cancelled the read."""
        if task in self._late:
            task.uncancel()
            raise InputError(
                f"the body did not arrive within {self._seconds:g} s", code="body_timeout", hint="send it again"
            ) from None

    def end(self, task: asyncio.Task[Any]) -> None:
        """Forget a read."""
        del self._begun[task]
        if self._late:
            self._late.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        overdue = boottime() - self._seconds
        for task, begun in self._begun.items():
            if begun < overdue and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looking = bool(self._begun)
        if self._looking:
            loop.call_later(LOOK_SECONDS, self._look, loop)
