"""Forward authentication: a gateway asks about each request, and answers the client by what it is told.

    /auth/nginx           auth_request            original request in X-Original-Method and X-Original-URI
    /auth/traefik         ForwardAuth; Caddy      original request in X-Forwarded-Method and X-Forwarded-Uri
    /auth/envoy/<path>    HTTP ext_authz          the request itself is the original; options in X-Keyturn-Options

The gateway proves itself by a management token in `X-Keyturn-Token`; `gateway_options` says what it may ask for.
A body is not read.  The answer is 200 with identity headers, or the refusal that the client gets:

    401, 403   always about the presented key
    429        a limit or quota, with Retry-After and RateLimit fields
    503        no verdict now; or the gateway's own token or options are wrong, which no client can mend

nginx hands on nothing but 401 and 403, and no body.  There the answer to all else is 403, with the true status in
`X-Keyturn-Status` and the body in `X-Keyturn-Problem`; the shipped configuration puts both back in place.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from keyturn.access.caller import Credentials
from keyturn.errors import ConfigError, InputError, KeyturnError, UnauthenticatedError, UnavailableError
from keyturn.http import problems
from keyturn.http.edge import scope_request_id
from keyturn.http.gateway_options import parse_options
from keyturn.http.identity import Headers, identity_headers
from keyturn.http.presented import Told, presented_key, told_by
from keyturn.kernel.clock import boottime
from keyturn.kernel.secret import Secret
from keyturn.verify.forwarded import vouched_address
from keyturn.wire.ratelimit_fields import fields
from keyturn.wire.refusals import Refusal, missing_key, refusal_of_verdict
from keyturn.wire.verification import VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.http.gateway_options import GatewayOptions
    from keyturn.http.lanes import Receive, Scope, Send
    from keyturn.keys.verification import VerifyService
    from keyturn.wire.verification import VerifyResponse

ENVOY_PATH: Final = "/auth/envoy"
REALM: Final = "keyturn"
_PASSED_BY_NGINX: Final = frozenset({200, 401, 403})
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/=-]{1,512}")
_OPTIONS: Final = b"x-keyturn-options"
_FIXED: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_ANSWERS_MAX: Final = 4096
_FORWARDED_KEPT_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where a gateway puts the original request; without names it is the request itself, behind ENVOY_PATH."""

    name: str
    method: bytes | None = None
    uri: bytes | None = None


NGINX: Final = Dialect("nginx", b"x-original-method", b"x-original-uri")
TRAEFIK: Final = Dialect("traefik", b"x-forwarded-method", b"x-forwarded-uri")
ENVOY: Final = Dialect("envoy")
_BY_PATH: Final = {"/auth/nginx": NGINX, "/auth/traefik": TRAEFIK, ENVOY_PATH: ENVOY}


def dialect_of(path: str) -> Dialect | None:
    """Return the dialect that is spoken at a path, None when it is another feature's."""
    return _BY_PATH.get(path) or (ENVOY if path.startswith("/auth/envoy/") else None)


class ForwardAuthLane:
    """The ASGI application for every dialect."""

    def __init__(
        self,
        service: VerifyService,
        *,
        trusted_proxies: tuple[Any, ...] = (),
        draining: asyncio.Event | None = None,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        """Answer with `service`; `observe(code, seconds)` is told of every verdict."""
        self._service = service
        self._trusted_proxies = trusted_proxies
        self._draining = asyncio.Event() if draining is None else draining
        self._observe = observe
        self._admitted: dict[str, tuple[VerifyResponse, Headers]] = {}
        self._clients: dict[tuple[str, bytes], str | None] = {}

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request; its body stays unread."""
        dialect = dialect_of(scope["path"]) or TRAEFIK
        refusal: Refusal | None
        headers: Headers
        try:
            refusal, headers = await self._decide(scope, dialect)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of this lane: logged, and answered as a problem
            refusal, headers = _failure(error, scope), []
        # What follows a body that stays unread could not be told from its rest.
        lasts = not self._draining.is_set() and not _has_body(scope["headers"])
        if not lasts and scope.get("http_version", "1.1").startswith("1"):
            headers = [*headers, (b"connection", b"close")]
        await _send(refusal, headers, scope, send, nginx=dialect is NGINX)

    async def _decide(self, scope: Scope, dialect: Dialect) -> tuple[Refusal | None, Headers]:
        started = boottime()
        told = told_by(scope["headers"])
        token = told.values.get(b"x-keyturn-token")
        if token is None or not _TOKEN.fullmatch(token):
            raise _unproven()
        options = parse_options(scope["query_string"] if dialect is not ENVOY else _options_header(told))
        key = presented_key(told, options)
        if key is None:
            return missing_key(REALM), [(b"x-keyturn-code", b"MISSING_KEY")]
        gateway = _peer(scope)
        asked = self._question(scope, told.values, dialect, options, key)
        answer = self._service.verify_now(token, gateway, asked)
        if answer is None:
            credentials = Credentials(Secret(token), gateway, scope_request_id(scope))
            answer = await self._service.verify(credentials, asked)
        if self._observe is not None:
            self._observe(answer.code, boottime() - started)
        if answer.valid:
            return None, self._identity(answer)
        return refusal_of_verdict(answer, realm=REALM, scopes=options.scopes), [
            (b"x-keyturn-code", answer.code.encode("ascii"))
        ]

    def _question(
        self, scope: Scope, told: dict[bytes, bytes], dialect: Dialect, options: GatewayOptions, key: str
    ) -> VerifyRequest:
        if dialect.method is None or dialect.uri is None:
            method, path = scope["method"].encode("latin-1"), _behind_prefix(scope)
        else:
            method, path = told.get(dialect.method), told.get(dialect.uri)
        agent = told.get(b"user-agent")
        return VerifyRequest(
            key=key,
            scopes=options.scopes,
            ip=self._client(scope),
            origin=_within(told.get(b"origin") or told.get(b"referer"), 2048),
            method=_within(method, 32),
            path=_within(None if path is None else path.partition(b"?")[0], 8192),
            user_agent=None if agent is None else agent[:1024].decode("latin-1"),
            keyspace=options.keyspace,
            cost=options.cost,
        )

    def _client(self, scope: Scope) -> str | None:
        """Return the address of the client as a listed gateway tells it; what is told again is read once."""
        forwarded = b",".join([value for name, value in scope["headers"] if name == b"x-forwarded-for"])
        peer = _peer(scope)
        if not forwarded or peer is None:
            return None
        try:
            return self._clients[peer, forwarded]
        except KeyError:
            address = vouched_address(peer, forwarded.decode("latin-1"), self._trusted_proxies)
        if len(self._clients) >= _ANSWERS_MAX:
            self._clients.clear()
        if len(forwarded) <= _FORWARDED_KEPT_MAX:
            self._clients[peer, forwarded] = address
        return address

    def _identity(self, answer: VerifyResponse) -> Headers:
        """Return the headers of an answer that admits; what is answered again and again is encoded once."""
        held = self._admitted.get(answer.version_id or "")
        if held is not None and held[0] is answer:
            return held[1]
        headers = identity_headers(answer)
        headers += [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields(answer)]
        if answer.limits is None and answer.quotas is None and answer.slots is None:
            if len(self._admitted) >= _ANSWERS_MAX:
                self._admitted.clear()
            self._admitted[answer.version_id or ""] = (answer, headers)
        return headers


def _options_header(told: Told) -> bytes:
    if _OPTIONS in told.repeated:
        raise UnavailableError("the header X-Keyturn-Options is there more than once", code="gateway_options")
    return told.values.get(_OPTIONS, b"")


def _unproven() -> UnavailableError:
    return UnavailableError(
        "the gateway presented no valid management token",
        code="gateway_token",
        hint="set the header X-Keyturn-Token in the configuration of the gateway",
    )


def _has_body(headers: Headers) -> bool:
    return any((name == b"content-length" and value != b"0") or name == b"transfer-encoding" for name, value in headers)


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    if not client or not client[0]:
        return None
    address: str = client[0]
    return address.removeprefix("::ffff:") if "." in address else address


def _behind_prefix(scope: Scope) -> bytes | None:
    raw: bytes = scope.get("raw_path") or b""
    prefix = ENVOY_PATH.encode("ascii")
    return raw[len(prefix) :] or b"/" if raw.startswith(prefix) else None


def _within(value: bytes | None, longest: int) -> str | None:
    """Return what is told of a request, None for what is longer than verify takes: a restriction on it denies."""
    return None if value is None or len(value) > longest else value.decode("latin-1")


def _failure(error: Exception, scope: Scope) -> Refusal:
    """Answer what is no verdict: nothing passes, and 401 and 403 stay about the presented key."""
    if isinstance(error, UnauthenticatedError):
        error = _unproven()
    elif isinstance(error, InputError):
        error = UnavailableError(
            f"the gateway asks with options that are not understood: {error.message}",
            code="gateway_options",
            hint="correct the URL in the configuration of the gateway",
        )
    instance = scope_request_id(scope)
    problems.log_failure(error, instance, method=scope["method"], path=(dialect_of(scope["path"]) or TRAEFIK).name)
    described = problems.problem_of(error, instance)
    if isinstance(error, KeyturnError) and not isinstance(error, ConfigError) and described.status != 500:
        described = problems.build(503, described.code, described.detail, instance, hint=described.hint)
    headers = [("content-type", problems.MEDIA_TYPE), ("cache-control", "no-store")]
    if isinstance(error, KeyturnError):
        headers += [(n.lower(), v) for n, v in problems.headers_of(error).items() if n.lower() == "retry-after"]
    return Refusal(described.status, tuple(headers), problems.encode_problem(described))


async def _send(refusal: Refusal | None, headers: Headers, scope: Scope, send: Send, *, nginx: bool) -> None:
    status, body = (200, b"") if refusal is None else (refusal.status, refusal.body)
    given: Headers = [*_FIXED, *headers]
    if refusal is not None:
        given += [
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in refusal.headers
            if name.lower() != "cache-control"
        ]
        given += [(b"x-keyturn-status", b"%d" % status), (b"x-request-id", scope_request_id(scope).encode("ascii"))]
        if nginx:
            given.append((b"x-keyturn-problem", body))
            status, body = status if status in _PASSED_BY_NGINX else 403, b""
    given.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
