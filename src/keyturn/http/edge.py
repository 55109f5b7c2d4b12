"""What every route shares.

A route module is written so:

    from litestar import get, post
    from litestar.params import FromPath, JSONBody

    from keyturn.access.caller import Credentials          # imported for real: litestar reads the annotations
    from keyturn.http.edge import Given, Page, Tagged, tagged

    @post("/api/v1/keys/{key_id:str}/rotate", operation_id="rotateKey", tags=["keys"], status_code=200)
    async def rotate_key(
        key_id: FromPath[str],
        data: JSONBody[RotateKey],
        credentials: Given[Credentials],
        keys: Given[KeyService],
        idempotency: Given[str | None],
    ) -> KeyIssued:
        \"\"\"Rotate a key.  (First line: the summary in the OpenAPI document; the rest: its description.)\"\"\"
        return await keys.rotate(credentials, key_id, data, idempotency=idempotency)

    ROUTES = (rotate_key, …)

Paths are written in full.  A POST answers 201 unless `status_code=200` says otherwise.  Handlers are async.
Dependencies by name, as `Given[...]` (litestar's NamedDependency without its conversion, which copies and fails):

    credentials  Credentials          the bearer token, the caller's address and the request id; 401 without a token
    idempotency  str | None           the `Idempotency-Key` header, checked
    if_match     int | None           the revision in `If-Match`
    page         Page                 `limit` (1-200, default 50) and `cursor` of a list
    draining     asyncio.Event        set when the server stops: every stream and long poll must end then
    raw_body     bytes                the request's bytes
    and every service of the application by its name there: keys, keyspaces, access, tokens, usage, audit, …

Return a wire struct, or `tagged(struct, struct.revision)` (annotated `Tagged[Struct]`) to send its revision as `ETag`.
Errors are raised, as `keyturn.errors`; `problems` answers them.  A larger body: `request_max_body_size=BULK_BYTES_MAX`.
A body may be left out where `data` has a default.
Query parameters are `Annotated[int | None, QueryParameter(ge=0)] = None`.
A parameter that a route does not declare is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.di import Dependency
from litestar.params import HeaderParameter, QueryParameter, SkipValidationMarker

from keyturn.access.caller import Credentials
from keyturn.errors import InputError
from keyturn.http.body import BODY_BYTES_MAX, decode, decoder_for, read_within, require_json, require_length_within
from keyturn.http.peer import bearer_token, client_ip, request_id

if TYPE_CHECKING:
    from litestar.handlers import BaseRouteHandler

T = TypeVar("T")

API: Final = "/api/v1"
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200
_ETAG: Final = re.compile(r'"([0-9]{1,9})"')
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")

Given: TypeAlias = Annotated[T, Dependency(kind="named"), SkipValidationMarker()]
"""A dependency injected by the parameter's name, as it is."""

Tagged: TypeAlias = Response[T]
"""A response that carries the `ETag` of its entity."""


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded strictly into the type the route declares; see `body`."""

    async def body(self) -> bytes:
        """Read the whole body within the route's bound and in time."""
        known = self._connection_state.body
        if isinstance(known, bytes):
            return known
        bytes_max = self.route_handler.resolve_request_max_body_size() or BODY_BYTES_MAX
        require_length_within(self.headers.get("content-length"), bytes_max)
        read = await read_within(self.stream(), bytes_max)
        self._body = self._connection_state.body = read
        return read

    async def json(self) -> Any:  # noqa: ANN401 -- the signature of the base class
        """Decode the body; raises InputError or UnsupportedError."""
        require_json(self.headers.get("content-type", ""))
        declared = self.route_handler.parsed_data_field
        return decode(decoder_for(declared.annotation if declared else Any), await self.body())


class Page(msgspec.Struct, frozen=True):
    """Which part of a list is asked for."""

    limit: int
    cursor: str | None


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What the edge needs of the settings; in the application's state as `edge`."""

    trusted_proxies: tuple[Any, ...] = ()
    worker: str = ""


def scope_request_id(scope: Any) -> str:  # noqa: ANN401 -- an ASGI scope
    """Return the id of this request, the same for everyone who asks."""
    state: dict[str, Any] = scope.setdefault("state", {})
    found = state.get("request_id")
    if not isinstance(found, str):
        found = state["request_id"] = request_id(scope["headers"])
    return found


def credentials_of(scope: Any, trusted_proxies: tuple[Any, ...]) -> Credentials:  # noqa: ANN401 -- an ASGI scope
    """Build the caller's credentials; raises UnauthenticatedError without a bearer token."""
    return Credentials(bearer_token(scope["headers"]), client_ip(scope, trusted_proxies), scope_request_id(scope))


async def provide_credentials(request: StrictRequest) -> Credentials:
    """Provide `credentials`."""
    edge: EdgeSettings = request.app.state.edge
    return credentials_of(request.scope, edge.trusted_proxies)


async def require_bearer(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Refuse a request without a bearer token before its body is read."""
    bearer_token(connection.scope["headers"])


async def provide_idempotency(
    idempotency_key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key",
            description="1-255 visible ASCII characters; the same request with the same key is done once.",
            schema_extra={"pattern": "^[!-~]{1,255}$"},
        ),
    ] = None,
) -> str | None:
    """Provide `idempotency`."""
    return parse_idempotency_key(idempotency_key)


async def provide_if_match(
    if_match_header: Annotated[
        str | None,
        HeaderParameter(
            name="If-Match",
            description='The `ETag` last seen, `"<revision>"`; 412 when it is not current.',
            schema_extra={"pattern": '^(\\*|"[0-9]{1,9}")$'},
        ),
    ] = None,
) -> int | None:
    """Provide `if_match`."""
    return parse_if_match(if_match_header)


async def provide_page(
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="How many items at most.")] = PAGE_DEFAULT,
    cursor: Annotated[
        str | None, QueryParameter(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
) -> Page:
    """Provide `page`."""
    return Page(limit, cursor)


async def provide_raw_body(request: StrictRequest) -> bytes:
    """Provide `raw_body`."""
    return await request.body()


def parse_idempotency_key(text: str | None) -> str | None:
    """Check an `Idempotency-Key`: 1 to 255 visible ASCII characters; raises InputError."""
    if text is not None and not _IDEMPOTENCY_KEY.fullmatch(text):
        raise InputError("Idempotency-Key must be 1 to 255 visible ASCII characters", field="Idempotency-Key")
    return text


def parse_if_match(text: str | None) -> int | None:
    """Return the revision of an `If-Match` header, None when there is none or it is `*`; raises InputError."""
    if text is None or text.strip() == "*":
        return None
    found = _ETAG.fullmatch(text.strip())
    if found is None:
        raise InputError('If-Match must be one strong entity tag such as "3"', field="If-Match")
    return int(found[1])


def tagged(value: T, revision: int, *, status_code: int | None = None) -> Response[T]:
    """Answer with `ETag: "<revision>"`."""
    return Response(value, status_code=status_code, headers={"ETag": f'"{revision}"'})
