"""Requests to a server without I/O: what to send, what an answer means, and when to try again.

    call = endpoint.call("POST", "/keys", body, idempotent=True)
    attempts = Attempts(call)
    loop:  send call.method call.url call.headers call.body
           -> answered(status, headers)  ->  None: read it | seconds: wait, then send again
           -> failed(error)              ->  None: raise   | seconds: wait, then send again
    read(call, status, headers, body, type) -> the value, or one of keyturn.errors

A call that may have been done is sent again only when doing it twice is the same as once: a GET, or a POST with an
`Idempotency-Key`.  Waits grow and are drawn at random, so that clients that failed together do not return together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from keyturn import __version__, errors
from keyturn.kernel.secret import Secret, random_base62, random_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

API: Final = "/api/v1"
ATTEMPTS_MAX: Final = 4
FIRST_WAIT_SECONDS: Final = 0.1
WAIT_SECONDS_MAX: Final = 5.0
AGAIN: Final = frozenset({429, 502, 503, 504})
_INSTANCE: Final = "urn:keyturn:request:"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_BY_STATUS: Final[dict[int, type[errors.KeyturnError]]] = {
    400: errors.InputError,
    401: errors.UnauthenticatedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.GoneError,
    412: errors.PreconditionError,
    413: errors.TooLargeError,
    415: errors.UnsupportedError,
    422: errors.IdempotencyError,
    503: errors.UnavailableError,
}


class Call(msgspec.Struct, frozen=True):
    """One request, ready to be sent.  Its headers hold the token: it does not print itself."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    repeatable: bool

    def __repr__(self) -> str:
        return f"Call({self.method} {self.url.partition('?')[0]})"

    def __rich_repr__(self) -> Any:  # noqa: ANN401 -- the signature msgspec gives it
        yield f"{self.method} {self.url.partition('?')[0]}"


class _Problem(msgspec.Struct):
    detail: str | None = None
    title: str | None = None
    code: str | None = None
    field: str | None = None
    hint: str | None = None
    instance: str | None = None


class Endpoint:
    """The address of a server and the token for it.

    Raises ConfigError for an address that is not http or https, and for http to anywhere but this machine unless
    `allow_insecure`: the token and the keys would cross the network in clear.
    """

    __slots__ = ("_token", "url")

    def __init__(self, url: str, token: str | Secret, *, allow_insecure: bool = False) -> None:
        """Check the address; nothing is sent."""
        parts = urlsplit(url)
        try:
            host = parts.hostname
        except ValueError:
            host = None
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or parts.username:
            raise errors.ConfigError("the server's address cannot be used", hint="write it as https://keys.example.com")
        if in_clear(url) and not allow_insecure:
            raise errors.ConfigError(
                f"http to {host} would send the token in clear",
                hint="use https, or pass allow_insecure=True on a network you trust",
            )
        self._token = token if isinstance(token, Secret) else Secret(token)
        if not len(self._token):
            raise errors.ConfigError("the management token is empty")
        self.url = url.rstrip("/")

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, Any] | None = None,
        idempotent: bool | str = False,
        repeatable: bool | None = None,
        if_match: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Call:
        """Build a request below the API root.

        `idempotent` sends an `Idempotency-Key`, the given one or a new one, and makes a POST repeatable.
        `repeatable` says that a POST may be repeated without one.
        """
        sent = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token.reveal()}",
            "User-Agent": f"keyturn-python/{__version__}",
            **(headers or {}),
        }
        content = None
        if method != "GET":
            content = msgspec.json.encode({} if body is None else body)
            sent["Content-Type"] = "application/json"
        if idempotent:
            sent["Idempotency-Key"] = idempotent if isinstance(idempotent, str) else random_base62(22)
        if if_match is not None:
            sent["If-Match"] = if_match
        given = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self.url}{API}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        again = method == "GET" or bool(idempotent) if repeatable is None else repeatable
        return Call(method, url, sent, content, again)


class Attempts:
    """How often one call has been tried, and whether and when it is tried again."""

    __slots__ = ("_call", "_done", "_max")

    def __init__(self, call: Call, *, attempts_max: int = ATTEMPTS_MAX) -> None:
        """Begin before the first attempt."""
        self._call = call
        self._max = attempts_max
        self._done = 0

    def answered(self, status: int, headers: Mapping[str, str]) -> float | None:
        """Return how long to wait before another attempt; None when this answer is the one to read."""
        self._done += 1
        if status not in AGAIN or self._done >= self._max:
            return None
        # 429 says that nothing was done; after the others it may have been.
        if status != 429 and not self._call.repeatable:
            return None
        told = retry_after(headers)
        if told is None:
            return pause(self._done)
        return None if told > WAIT_SECONDS_MAX else told + pause(1)

    def failed(self, *, sent: bool) -> float | None:
        """Return how long to wait after there was no answer; None to give up.

        `sent` is False when the connection was never made, so that nothing can have been done.
        """
        self._done += 1
        if self._done >= self._max or (sent and not self._call.repeatable):
            return None
        return pause(self._done)


def pause(attempt: int) -> float:
    """Return how long to wait after the nth failure: drawn between nothing and a bound that doubles each time."""
    bound = min(WAIT_SECONDS_MAX, FIRST_WAIT_SECONDS * 2.0 ** min(attempt - 1, 16))
    return bound * int.from_bytes(random_bytes(4), "big") / 2**32


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After`; None without one, or for a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def read(status: int, headers: Mapping[str, str], body: bytes, kind: type[T]) -> T:
    """Decode an answer as `kind`, or raise the error that it tells of."""
    if not 200 <= status < 300:
        raise error_of(status, headers, body)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.UnavailableError(
            "the server's answer cannot be read", code="unreadable_answer", internal=type(error).__name__
        ) from error


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> errors.KeyturnError:
    """Return the error that a refusal tells of."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    error = _error(status, headers, problem)
    error.request_id = (problem.instance or "").removeprefix(_INSTANCE) or None
    return error


def _error(status: int, headers: Mapping[str, str], problem: _Problem) -> errors.KeyturnError:
    message = problem.detail or problem.title or f"the server answered {status}"
    if status == 429:
        return errors.ThrottledError(message, retry_after_seconds=retry_after(headers) or 1.0, hint=problem.hint)
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = errors.ConflictError if 400 <= status < 500 else errors.UnavailableError
    return kind(message, code=problem.code, field=problem.field, hint=problem.hint)


def in_clear(url: str) -> bool:
    """Tell whether what is sent to an address crosses a network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def unreachable(url: str, error: Exception) -> errors.UnavailableError:
    """Return the error of a call that got no answer."""
    return errors.UnavailableError(f"no answer from {url}", code="unreachable", internal=type(error).__name__)


def segment(text: str) -> str:
    """Return text as one segment of a path."""
    return quote(text, safe="")


def segments(path: str) -> str:
    """Return the path of a secret as part of an address; raises InputError for one that would be resolved."""
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise errors.InputError(
            f"path {path[:80]!r} has an empty segment, or one of dots", field="path", hint="paths are not resolved"
        )
    return quote(path, safe="/")
