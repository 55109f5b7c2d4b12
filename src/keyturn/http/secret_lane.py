"""The lane of reads: `GET /api/v1/secrets/{path}` as raw ASGI, in front of the router.

    target and query -> bearer token -> SecretReader.read_encoded (on record first) -> answer

It answers exactly as the route of the same path does, which the OpenAPI document describes and HEAD takes.  Every
other method on these paths goes to the router.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from keyturn.errors import InputError, KeyturnError
from keyturn.http import problems
from keyturn.http.edge import credentials_of, scope_request_id
from keyturn.http.peer import header, require_clean_target
from keyturn.kernel.clock import boottime

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.http.lanes import Receive, Scope, Send
    from keyturn.vault.reading import SecretReader

PREFIX: Final = "/api/v1/secrets/"
ROUTE: Final = "/api/v1/secrets/{path}"
NUMBER_MAX: Final = 2**31 - 1

_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_TRUTH: Final = {"true": True, "false": False}
_KNOWN: Final = ("resolve", "sequence", "version")
_FIXED: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")


class SecretLane:
    """An ASGI application for one operation."""

    def __init__(
        self,
        reader: SecretReader,
        *,
        trusted_proxies: tuple[Any, ...] = (),
        draining: asyncio.Event | None = None,
        observe: Callable[[str, str, int, float], None] | None = None,
        over_tls: bool = False,
    ) -> None:
        """Answer with `reader`; `observe(method, route, status, seconds)` is told of every request."""
        self._reader = reader
        self._trusted_proxies = trusted_proxies
        self._draining = asyncio.Event() if draining is None else draining
        self._observe = observe
        self._fixed = (*_FIXED, _STRICT_TRANSPORT) if over_tls else _FIXED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- no body is read
        """Serve one request."""
        started = boottime()
        status, content_type = 200, b"application/json"
        more: list[tuple[bytes, bytes]] = []
        try:
            require_clean_target(scope)
            version, sequence, resolve = _asked(scope.get("query_string") or b"")
            body = await self._reader.read_encoded(
                credentials_of(scope, self._trusted_proxies),
                scope["path"][len(PREFIX) :],
                version=version,
                sequence=sequence,
                resolve=resolve,
                user_agent=_user_agent(scope),
            )
        except Exception as error:  # noqa: BLE001 -- the outermost frame of this lane: logged, and answered as a problem
            instance = scope_request_id(scope)
            problems.log_failure(error, instance, method="GET", path=ROUTE)
            problem = problems.problem_of(error, instance)
            status, content_type = problem.status, problems.MEDIA_TYPE.encode()
            body = problems.encode_problem(problem)
            if isinstance(error, KeyturnError):
                more = [(name.lower().encode(), value.encode()) for name, value in problems.headers_of(error).items()]
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", scope_request_id(scope).encode()),
            *self._fixed,
            *more,
        ]
        if self._draining.is_set():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        if self._observe is not None:
            self._observe("GET", ROUTE, status, boottime() - started)


def is_read(scope: Scope) -> bool:
    """Tell whether a request is one for this lane."""
    return scope.get("method") == "GET" and scope["path"].startswith(PREFIX)


def _asked(query: bytes) -> tuple[int | None, int | None, bool]:
    """Return version, sequence and whether to resolve; raises InputError for anything else in the query."""
    if not query:
        return None, None, True
    given: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace"):
        shown = "".join(character if character.isprintable() else "?" for character in name)[:64]
        if name not in _KNOWN:
            raise InputError(
                f"{shown}: not a query parameter of this operation",
                field=shown,
                hint=f"known here: {', '.join(_KNOWN)}",
            )
        if name in given:
            raise InputError(f"{shown}: given more than once", field=shown)
        given[name] = value
    resolve = given.get("resolve", "true")
    if resolve not in _TRUTH:
        raise InputError("resolve: expected true or false", field="resolve")
    return _number(given, "version"), _number(given, "sequence"), _TRUTH[resolve]


def _number(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= NUMBER_MAX:
        raise InputError(f"{name}: expected a whole number from 1 to {NUMBER_MAX}", field=name)
    return int(text)


def _user_agent(scope: Scope) -> str | None:
    given = header(scope["headers"], b"user-agent")
    return None if given is None else given.decode("latin-1")
