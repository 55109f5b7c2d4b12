"""The lane of reads answers as its route would: strictly, without storing, and with problems."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from keyturn.http.secret_lane import SecretLane, is_read
from keyturn.wire.secrets import SelectVersions
from tests.vault.library import STRIPE, Library, opened_library


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def get(
    library: Library, path: str, query: str = "", *, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """Send a GET through the lane; return status, headers and decoded body."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    given = {"authorization": f"Bearer {library.desk.admin.token.reveal()}"} if headers is None else headers
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/v1/secrets/{path}",
        "raw_path": f"/api/v1/secrets/{path}".encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("192.0.2.7", "1234"),
    }
    assert is_read(scope)
    observed: list[tuple[str, str, int]] = []
    lane = SecretLane(library.reader, observe=lambda method, route, status, _: observed.append((method, route, status)))
    await lane(scope, receive, send)
    start, body = sent
    assert observed == [("GET", "/api/v1/secrets/{path}", start["status"])]
    return (
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        msgspec.json.decode(body["body"]),
    )


async def test_a_value_is_answered_and_never_stored(library: Library) -> None:
    await library.put()
    status, headers, body = await get(library, STRIPE)

    assert (status, body["fields"], body["version"]) == (200, {"token": "held"}, 1)
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]


async def test_the_request_id_of_the_answer_is_that_of_the_leaf(library: Library) -> None:
    await library.put()
    token = f"Bearer {library.desk.admin.token.reveal()}"
    await get(library, STRIPE, headers={"authorization": token, "x-request-id": "req-of-the-caller"})

    (leaf,) = await library.desk.leaves("secret.reveal")
    assert leaf["request"] == {"id": "req-of-the-caller", "ip": "192.0.2.7"}


async def test_the_user_agent_is_that_of_the_reader(library: Library) -> None:
    await library.put()
    token = f"Bearer {library.desk.admin.token.reveal()}"
    await get(library, STRIPE, headers={"authorization": token, "user-agent": "shop/2.1"})

    assert (await library.reader.readers(library.desk.admin, STRIPE)).items[0].user_agent == "shop/2.1"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("version=0", "version"),
        ("version=1&version=1", "version"),
        ("version=", "version"),
        ("version=%31%0a", "version"),
        ("version=99999999999", "version"),
        ("sequence=-1", "sequence"),
        ("version=1&sequence=1", "sequence"),
        ("resolve=yes", "resolve"),
        ("foo=1", "foo"),
        ("%ff=1", "query"),
    ],
)
async def test_a_query_that_is_not_understood_is_refused(library: Library, query: str, field: str) -> None:
    status, headers, body = await get(library, STRIPE, query)

    assert (status, body["code"], body["field"]) == (400, "invalid_input", field)
    assert headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    ["production", "production/", "production//a", "production/../a", "production/a%00", "sys/a", "production/\uff41"],
)
async def test_a_path_that_is_none_is_refused_and_never_corrected(library: Library, path: str) -> None:
    status, _, body = await get(library, path)

    assert (status, body["field"]) == (400, "path")


async def test_without_a_token_nothing_is_said(library: Library) -> None:
    await library.put()
    status, headers, body = await get(library, STRIPE, headers={})

    assert (status, body["code"]) == (401, "unauthenticated")
    assert headers["www-authenticate"].startswith("Bearer")


async def test_a_version_that_was_deleted_says_so(library: Library) -> None:
    await library.put()
    await library.vault.delete(library.desk.admin, STRIPE, SelectVersions())
    status, _, body = await get(library, STRIPE)

    assert (status, body["code"]) == (404, "version_deleted")


async def test_a_reference_is_left_as_written_when_asked(library: Library) -> None:
    await library.put(fields={"a": "${secret:production/x/y#z}"})
    assert (await get(library, STRIPE, "resolve=false"))[2]["fields"] == {"a": "${secret:production/x/y#z}"}
    assert (await get(library, STRIPE))[2]["code"] == "broken_reference"


def test_other_methods_and_lists_go_to_the_router() -> None:
    for method, path in (("PUT", "/api/v1/secrets/a/b"), ("HEAD", "/api/v1/secrets/a/b"), ("GET", "/api/v1/secrets")):
        assert not is_read({"method": method, "path": path})
