"""What the connection and headers say about a request: the caller's address, the request's id, the bearer token.

Plain functions over an ASGI scope, so that the verify lane and the routes read them alike.
`X-Forwarded-For` counts only when the peer is a listed proxy, and then only as far as listed proxies vouch for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from keyturn.errors import InputError, UnauthenticatedError
from keyturn.kernel.secret import Secret, random_base62
from keyturn.verify.forwarded import forwarded_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keyturn.verify.forwarded import Network

    RawHeaders = Iterable[tuple[bytes, bytes]]

_ID_LENGTH: Final = 22
_DRAWN_AT_ONCE: Final = 128
_drawn: Final[list[str]] = []
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_BEARER: Final = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/=-]{1,512}) *")
_UNAUTHENTICATED_HINT: Final = "send `Authorization: Bearer <management token>`"


def header(headers: RawHeaders, name: bytes) -> bytes | None:
    """Return the first header of that lower-case name."""
    return next((value for key, value in headers if key == name), None)


def request_id(headers: RawHeaders) -> str:
    """Return the caller's `X-Request-Id` when it is one (1-64 of `A-Za-z0-9._:-`), else a new id."""
    given = header(headers, b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return _new_request_id()


def _new_request_id() -> str:
    # Drawn many at a time: each call for randomness lets other threads in, and one of them may stay for long.
    # Nothing is drawn before the first request, so processes that were forked do not share any.
    try:
        return _drawn.pop()
    except IndexError:
        text = random_base62(_ID_LENGTH * _DRAWN_AT_ONCE)
        found = [f"req_{text[at : at + _ID_LENGTH]}" for at in range(0, len(text), _ID_LENGTH)]
        _drawn.extend(found[1:])
        return found[0]


def bearer_token(headers: RawHeaders) -> Secret:
    """Return the bearer token; raises UnauthenticatedError when there is none, or more than one."""
    given = [value for key, value in headers if key == b"authorization"]
    if not given:
        raise UnauthenticatedError("no bearer token was presented", hint=_UNAUTHENTICATED_HINT)
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise UnauthenticatedError("the Authorization header is not one bearer token", hint=_UNAUTHENTICATED_HINT)
    return Secret(found[1])


def client_ip(scope: Mapping[str, Any], trusted: tuple[Network, ...]) -> str | None:
    """Return the address of the caller's machine, None when the connection has none (a Unix socket).

    Behind a listed proxy it is the last address in `X-Forwarded-For` that is not itself a listed proxy.
    """
    client = scope.get("client")
    if not client or not client[0]:
        return None
    forwarded = b",".join(value for key, value in scope["headers"] if key == b"x-forwarded-for") if trusted else b""
    return forwarded_address(client[0], forwarded.decode("latin-1"), trusted)


def require_clean_target(scope: Mapping[str, Any]) -> None:
    """Refuse a path or query that holds NUL or, decoded, is not UTF-8."""
    for part, raw in (("path", scope.get("raw_path") or b""), ("query", scope.get("query_string") or b"")):
        if b"%" not in raw and raw.isascii() and b"\0" not in raw:
            continue
        decoded = _percent_decoded(raw)
        try:
            text = decoded.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"the {part} is not UTF-8", field=part) from None
        if "\0" in text:
            raise InputError(f"the {part} holds the character NUL", field=part)


def _percent_decoded(raw: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), raw)
