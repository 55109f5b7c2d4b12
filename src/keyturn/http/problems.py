"""How an error looks: RFC 9457 problem details, and the one table of status codes.

    {"type": "urn:keyturn:problem:<code>", "title": …, "status": …, "detail": …, "instance": "urn:keyturn:request:<id>",
     "code": …, "field": …, "hint": …}

`code` is stable.  `detail` is the public sentence of the error.  An exception that is not ours is answered as 500
without any detail and logged under the request's id.
"""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException

from keyturn import errors
from keyturn.http.edge import scope_request_id
from keyturn.http.parameters import wire_names
from keyturn.kernel.redact import scrub

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import ExceptionHandlersMap

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[dict[type[errors.KeyturnError], int]] = {
    errors.KeyturnError: 500,
    errors.InputError: 400,
    errors.UnsupportedError: 415,
    errors.TooLargeError: 413,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.InFlightError: 409,
    errors.CapError: 409,
    errors.PreconditionError: 412,
    errors.IdempotencyError: 422,
    errors.GoneError: 410,
    errors.DestroyedError: 410,
    errors.ThrottledError: 429,
    errors.UnavailableError: 503,
    errors.StorageError: 503,
    errors.StaleError: 503,
    errors.ConfigError: 500,
    errors.KekError: 500,
    errors.IntegrityError: 500,
    errors.BrokenInvariantError: 500,
}
"""Every error and its status; nothing else chooses one."""

# What the router refuses by itself, in our words.
_ROUTER_CODES: Final = {
    400: "invalid_input",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "throttled",
    503: "unavailable",
}
_ROUTER_HINTS: Final = {404: "see /docs for what there is", 405: "the Allow header names the methods it has"}
_MISSING: Final = re.compile(r"Missing required (?P<kind>query|header|cookie) parameter '(?P<name>[^']{1,64})' for ")
_INTERNAL: Final = "the server failed; its log has the cause under this instance"

_log = structlog.get_logger("keyturn.http")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details with a stable `code`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    field: str | None = None
    hint: str | None = None


def status_of(error: errors.KeyturnError) -> int:
    """Return the status of an error: of its own class, or of the nearest one above."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def headers_of(error: errors.KeyturnError) -> dict[str, str]:
    """Return the headers that go with an error."""
    if isinstance(error, errors.ThrottledError):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}
    if isinstance(error, errors.UnauthenticatedError):
        return {"WWW-Authenticate": 'Bearer realm="keyturn"'}
    if isinstance(error, errors.UnavailableError):
        return {"Retry-After": "1"}
    return {}


def problem_of(error: BaseException, instance: str) -> Problem:
    """Describe any exception to a caller; says nothing about one that is not ours."""
    if isinstance(error, errors.KeyturnError):
        status = status_of(error)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return build(status, error.code, _INTERNAL, instance)
        return build(status, error.code, error.message, instance, field=error.field, hint=error.hint)
    return build(500, "internal", _INTERNAL, instance)


def build(
    status: int, code: str, detail: str, instance: str, *, field: str | None = None, hint: str | None = None
) -> Problem:
    """Build a problem; no text in it can hold a credential."""
    return Problem(
        type=f"urn:keyturn:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=scrub(detail),
        instance=f"urn:keyturn:request:{instance}",
        code=code,
        field=None if field is None else scrub(field),
        hint=None if hint is None else scrub(hint),
    )


def log_failure(error: BaseException, instance: str, *, method: str, path: str) -> None:
    """Log what the caller is not told: our own bugs with their traceback, failed dependencies in one line."""
    if isinstance(error, errors.KeyturnError) and status_of(error) != HTTPStatus.INTERNAL_SERVER_ERROR:
        if isinstance(error, errors.UnavailableError):
            _log.warning(
                "request refused", code=error.code, reason=error.message, internal=error.internal, request_id=instance
            )
        return
    internal = error.internal if isinstance(error, errors.KeyturnError) else None
    _log.error("request failed", request_id=instance, method=method, path=path, internal=internal, exc_info=error)


def encode_problem(problem: Problem) -> bytes:
    """Encode a problem as the body of its response."""
    return msgspec.json.encode(problem)


def answer_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any exception that is not the router's own."""
    instance = scope_request_id(request.scope)
    log_failure(error, instance, method=request.method, path=request.url.path)
    headers = headers_of(error) if isinstance(error, errors.KeyturnError) else {}
    return _response(problem_of(error, instance), headers)


def answer_router(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the router refuses: no such path or method, a bad parameter."""
    if isinstance(error.__cause__, errors.KeyturnError):
        return answer_exception(request, error.__cause__)
    status = error.status_code
    instance = scope_request_id(request.scope)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE:
        return answer_exception(request, error)
    code = _ROUTER_CODES.get(status, "invalid_input")
    field, detail = _parameter(request, error)
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    hint = _ROUTER_HINTS.get(status)
    return _response(build(status, code, detail, instance, field=field, hint=hint), headers)


def _parameter(request: Request[Any, Any, Any], error: HTTPException) -> tuple[str | None, str]:
    # litestar describes a refused parameter as [{"key": "limit", "message": "Expected `int` <= 200", …}].
    extra = error.extra
    if isinstance(extra, list) and extra and isinstance(extra[0], dict):
        key, message = str(extra[0].get("key", "")), str(extra[0].get("message", error.detail)).replace("`", "")
        if key == "data":
            return None, "the body is missing; send a JSON object"
        field = wire_names(request.route_handler).get(key, key)
        return (str(field), f"{field}: {message}") if field else (None, message)
    if found := _MISSING.match(error.detail):
        return found["name"], f"{found['name']}: missing required {found['kind']} parameter"
    if error.status_code == HTTPStatus.NOT_FOUND:
        return None, "there is nothing at this path"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return None, "this path does not have that method"
    return None, str(error.detail)


def _response(problem: Problem, headers: dict[str, str]) -> Response[bytes]:
    return Response(encode_problem(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


HANDLERS: Final[ExceptionHandlersMap] = {HTTPException: answer_router, Exception: answer_exception}
"""The exception handlers of the application."""
