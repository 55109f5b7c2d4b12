"""A small application with the edge of the real one, to test what every route shares."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.errors import ThrottledError
from keyturn.http.app import create_app
from keyturn.http.body import BULK_BYTES_MAX
from keyturn.http.edge import EdgeSettings, Given, Page, Tagged, tagged
from keyturn.http.lanes import Gate, Observe

TOKEN = "sample"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int


class Thing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    number: int = 0
    parts: tuple[Part, ...] = ()
    metadata: dict[str, str] = {}


class Stored(msgspec.Struct, frozen=True):
    name: str
    revision: int


class Seen(msgspec.Struct, frozen=True):
    ip: str | None
    request_id: str | None
    idempotency: str | None
    if_match: int | None
    limit: int
    cursor: str | None


class Failures:
    """What the route `/api/v1/fail` raises."""

    def __init__(self) -> None:
        self.next: Exception = RuntimeError("nothing was set")


@post("/api/v1/things", operation_id="createThing", tags=["things"])
async def create_thing(data: JSONBody[Thing], credentials: Given[Credentials]) -> Tagged[Stored]:
    """Create a thing."""
    assert credentials.token.reveal() == TOKEN
    return tagged(Stored(data.name, 3), 3)


@post("/api/v1/things/bulk", operation_id="createThings", tags=["things"], request_max_body_size=BULK_BYTES_MAX)
async def create_things(data: JSONBody[list[Thing]]) -> int:
    """Create many things."""
    return len(data)


@get("/api/v1/things/{name:str}", operation_id="readThing", tags=["things"])
async def read_thing(name: FromPath[str]) -> Stored:
    """Show a thing."""
    return Stored(name, 1)


@get("/api/v1/things", operation_id="listThings", tags=["things"])
async def list_things(
    credentials: Given[Credentials],
    page: Given[Page],
    idempotency: Given[str | None],
    if_match: Given[int | None],
    thing_state: Annotated[int | None, QueryParameter(name="state", ge=0)] = None,
) -> Seen:
    """List things."""
    assert thing_state is None or thing_state >= 0
    return Seen(credentials.ip, credentials.request_id, idempotency, if_match, page.limit, page.cursor)


@get("/api/v1/fail", operation_id="fail", tags=["things"])
async def fail(failures: Given[Failures]) -> None:
    """Fail as the test says."""
    raise failures.next


@get("/open", operation_id="open", tags=["things"])
async def open_route() -> Response[bytes]:
    """Need no token."""
    return Response(b"open", media_type="text/plain")


class Sample:
    """The gate over the sample routes, and a client of it."""

    def __init__(self, client: httpx.AsyncClient, failures: Failures, draining: asyncio.Event) -> None:
        self.client = client
        self.failures = failures
        self.draining = draining

    async def fails_with(self, error: Exception) -> httpx.Response:
        self.failures.next = error
        return await self.client.get("/api/v1/fail", headers=BEARER)

    async def create(self, body: bytes, **headers: str) -> httpx.Response:
        given = {
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.client.post("/api/v1/things", content=body, headers={**BEARER, **given})


@asynccontextmanager
async def opened_sample(
    *, edge: EdgeSettings | None = None, observe: Observe | None = None, peer: str = "192.0.2.7"
) -> AsyncIterator[Sample]:
    failures, draining = Failures(), asyncio.Event()
    router: Any = create_app(
        {"failures": failures},
        edge or EdgeSettings(),
        protected=[create_thing, create_things, read_thing, list_things, fail],
        public=[open_route],
    )
    gate: Any = Gate(router, None, draining=draining, observe=observe)
    transport = httpx.ASGITransport(app=gate, client=(peer, 4711), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test") as client:
        yield Sample(client, failures, draining)


def throttled() -> ThrottledError:
    return ThrottledError("too many attempts", retry_after_seconds=2.2)
