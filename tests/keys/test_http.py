"""The routes of keyspaces, keys and tokens: names, statuses and headers, over the real application."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from keyturn.http import keys as key_routes
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from keyturn.http.lanes import Gate
from keyturn.kernel.ids import new_id
from tests.keys.desk import Desk, opened_desk

API = "/api/v1"


@dataclass
class Edge:
    """A client of the application, and the desk behind it."""

    desk: Desk
    client: httpx.AsyncClient

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send JSON; a body of None is no body at all."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return await self.client.request(method, API + path, headers=named)
        return await self.client.request(method, API + path, json=body, headers=named)

    async def made(self) -> dict[str, Any]:
        """Create a keyspace and issue a key in it."""
        await self.send("POST", "/keyspaces", {"name": "orders", "prefix": "acme", "environment": "production"})
        return (await self.send("POST", "/keys", KEY)).json()  # type: ignore[no-any-return]


KEY = {"keyspace": "orders", "owner": "billing", "purpose": "tests"}
LIMIT = {"name": "a", "limit": 1, "window_seconds": 1}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with opened_desk(f"sqlite:///{tmp_path / 'keyturn.db'}") as desk:
        services = {
            "keys": desk.keys,
            "keyspaces": desk.keyspaces,
            "plans": desk.plans,
            "owners": desk.owners,
            "tokens": desk.tokens,
            "usage": desk.usage,
        }
        router: Any = create_app(services, EdgeSettings(), protected=list(key_routes.ROUTES))
        app: Any = Gate(router, None, draining=asyncio.Event())
        headers = {"Authorization": f"Bearer {desk.admin.token.reveal()}"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://keyturn", headers=headers) as client:
            yield Edge(desk, client)


async def test_the_names_that_clients_rely_on(edge: Edge) -> None:
    created = await edge.send("POST", "/keyspaces", {"name": "orders", "prefix": "acme", "environment": "production"})
    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    issued = await edge.send("POST", "/keys", KEY | {"scopes": ["orders:read"]})
    assert (issued.status_code, issued.headers["etag"]) == (201, '"1"')
    key = issued.json()
    assert key["key"].startswith("acme_live_")
    rotated = await edge.send("POST", f"/keys/{key['id']}/rotate", {"overlap_seconds": 60})
    assert (rotated.status_code, rotated.headers["etag"]) == (200, '"2"')
    assert rotated.json()["key"] not in {key["key"], None}
    shown = (await edge.send("GET", f"/keys/{key['id']}")).json()
    assert "key" not in shown
    assert [one["number"] for one in shown["versions"]] == [2, 1]
    for verb, body in (("disable", {}), ("enable", {}), ("revoke", {"reason": "superseded"})):
        answer = await edge.send("POST", f"/keys/{key['id']}/{verb}", body)
        assert answer.status_code == 200
        told = answer.json()
        assert told["effective"] is True
        assert told["lag_ms"] >= 0
        assert (told["laggards"], "effective_by" in told) == ([], True)


async def test_an_action_that_needs_no_words_needs_no_body(edge: Edge) -> None:
    key = await edge.made()
    for verb in ("rotate", "retire", "disable", "enable", "revoke"):
        assert (await edge.send("POST", f"/keys/{key['id']}/{verb}")).status_code == 200
    for verb in ("disable", "enable", "rotate-pepper"):
        assert (await edge.send("POST", f"/keyspaces/orders/{verb}")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/keyspaces", {"name": "Orders", "prefix": "acme", "environment": "production"}, "name"),
        ("POST", "/keyspaces", {"name": "a", "prefix": "a_b", "environment": "production"}, "prefix"),
        ("POST", "/keyspaces", {"name": "a", "prefix": "acme", "environment": "production", "x": 1}, "x"),
        ("POST", "/keyspaces", {"name": "a\n", "prefix": "acme", "environment": "production"}, "name"),
        ("POST", "/keys", {"keyspace": "orders", "owner": "o"}, "purpose"),
        ("POST", "/keys", KEY | {"owner": " "}, "owner"),
        ("POST", "/keys", KEY | {"owner": "a\u202eb"}, "owner"),
        ("POST", "/keys", KEY | {"owner": 5}, "owner"),
        ("POST", "/keys", KEY | {"scopes": ["a b"]}, "scopes[0]"),
        ("POST", "/keys", KEY | {"metadata": {"a": 1}}, "metadata[...]"),
        ("POST", "/keys", KEY | {"tags": ["a"] * 51}, "tags"),
        ("POST", "/keys", KEY | {"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ("POST", "/keys", KEY | {"expires_at": 1900000000}, "expires_at"),
        ("POST", "/keys", KEY | {"expires_in_seconds": -1}, "expires_in_seconds"),
        ("POST", "/keys", KEY | {"expires_in_seconds": 10**15}, "expires_in_seconds"),
        ("POST", "/keys/bulk", {"keys": []}, "keys"),
        ("POST", "/keys/import", {"keyspace": "orders", "keys": [{"format": "md5"}]}, "keys[0].format"),
        ("POST", "/keys/{id}/rotate", {"overlap_seconds": -1}, "overlap_seconds"),
        ("POST", "/keys/{id}/rotate", {"overlap_seconds": 10**12}, "overlap_seconds"),
        ("POST", "/keys/{id}/rotate", {"overlap_seconds": "5"}, "overlap_seconds"),
        ("POST", "/keys/{id}/revoke", {"reason": "because"}, "reason"),
        ("POST", "/keys/{id}/disable", {"why": 1}, "why"),
        ("PATCH", "/keys/{id}", {"owner": None}, "owner"),
        ("PATCH", "/keyspaces/orders", {"stale_after_seconds": 0}, "stale_after_seconds"),
        ("GET", "/keys?expiring_before=5", None, "expiring_before"),
        ("GET", "/keys?limit=0", None, "limit"),
        ("GET", "/keys?cursor=nonsense", None, "cursor"),
        ("GET", "/keys?state=asleep", None, "state"),
        ("POST", "/keys", KEY | {"plan": "Basic"}, "plan"),
        ("POST", "/keys", KEY | {"limits": [{"name": "a", "limit": 1}]}, "limits[0].window_seconds"),
        ("POST", "/keys", KEY | {"limits": [LIMIT | {"per": "all"}]}, "limits[0].per"),
        ("POST", "/keys", KEY | {"limits": [LIMIT, LIMIT]}, "limits[1].name"),
        ("POST", "/keys", KEY | {"limits": [LIMIT | {"burst": 0}]}, "limits[0].burst"),
        ("POST", "/keys", KEY | {"limits": [LIMIT] * 17}, "limits"),
        ("POST", "/keys", KEY | {"quotas": [{"name": "a", "amount": 1, "refill_day": 3}]}, "quotas[0].refill_day"),
        ("POST", "/keys/bulk", {"keys": [KEY, KEY | {"limits": [LIMIT, LIMIT]}]}, "keys[1].limits[1].name"),
        ("POST", "/plans", {"name": "a b"}, "name"),
        ("POST", "/plans", {"name": "basic", "limits": [LIMIT | {"kind": "window"}]}, "limits[0].kind"),
        ("POST", "/plans", {"name": "basic", "state": "retired"}, "state"),
        ("PATCH", "/keyspaces/orders", {"limits": None}, "limits"),
        ("PATCH", "/keyspaces/orders", {"shadow_restrictions": {"cidrs": ["x"]}}, "shadow_restrictions.cidrs[0]"),
        ("PATCH", "/owners/a%0Ab", {"limits": []}, "name"),
        ("PATCH", "/owners/billing", {"plan": 5}, "plan"),
        ("GET", "/plans?state=asleep", None, "state"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(
    edge: Edge, method: str, path: str, body: Any, field: str
) -> None:
    key = await edge.made()
    answer = await edge.send(method, path.replace("{id}", key["id"]), body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["field"] == field


async def test_every_route_needs_a_token(edge: Edge) -> None:
    del edge.client.headers["Authorization"]
    for route in key_routes.ROUTES:
        for path in route.paths:
            concrete = path.replace("{key_id:str}", "k").replace("{name:str}", "n")
            concrete = concrete.replace("{principal_id:str}", "p").replace("{token_id:str}", "t")
            for method in route.http_methods:
                answer = await edge.client.request(method, concrete, json={})
                assert answer.status_code == 401, (method, concrete)
                assert "www-authenticate" in answer.headers


async def test_a_stale_entity_tag_is_a_412(edge: Edge) -> None:
    key = await edge.made()
    path = f"/keys/{key['id']}"
    assert (await edge.send("PATCH", path, {"owner": "a"}, If_Match='"1"')).headers["etag"] == '"2"'
    for method, rest, body in (("PATCH", "", {"owner": "b"}), ("POST", "/rotate", {}), ("POST", "/revoke", {})):
        assert (await edge.send(method, path + rest, body, If_Match='"1"')).status_code == 412
    assert (await edge.send("GET", path)).json()["owner"] == "a"


async def test_the_same_idempotency_key_is_one_key_and_another_body_a_422(edge: Edge) -> None:
    await edge.made()
    answers = [await edge.send("POST", "/keys", KEY, Idempotency_Key="k1") for _ in range(2)]
    assert answers[0].json()["key"] == answers[1].json()["key"]
    assert [answer.status_code for answer in answers] == [201, 201]
    other = await edge.send("POST", "/keys", KEY | {"owner": "x"}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    "path",
    ["/keys/key_" + "0" * 22, "/keys/x", "/keys/%F0%9F%94%91", "/keyspaces/unheard-of", "/keys/" + "k" * 2000],
)
async def test_what_does_not_exist_is_a_404(edge: Edge, path: str) -> None:
    assert (await edge.send("GET", path)).status_code == 404


async def test_imports_and_bulks_go_in_and_come_out_without_what_was_given(edge: Edge) -> None:
    await edge.made()
    foreign = "-".join(("sk", "foreign", "0123456789"))
    given = {
        "format": "sha256_hex",
        "value": hashlib.sha256(foreign.encode()).hexdigest(),
        "owner": "o",
        "purpose": "p",
    }
    answer = await edge.send("POST", "/keys/import", {"keyspace": "orders", "keys": [given]})
    assert answer.status_code == 201
    assert given["value"] not in answer.text
    again = await edge.send("POST", "/keys/import", {"keyspace": "orders", "keys": [given]})
    assert (again.status_code, again.json()["code"]) == (409, "duplicate")
    bulk = await edge.send("POST", "/keys/bulk", {"keys": [KEY] * 1000})
    assert (bulk.status_code, len(bulk.json()["items"])) == (201, 1000)
    listed = (await edge.send("GET", "/keys?limit=200&owner=billing")).json()
    assert len(listed["items"]) == 200
    assert listed["next_cursor"]


async def test_a_token_is_issued_listed_and_revoked(edge: Edge) -> None:
    path = f"/principals/{edge.desk.founded.principal.id}/tokens"
    issued = await edge.send("POST", path, {"name": "ci", "expires_in_seconds": 60})
    assert issued.status_code == 201
    token = issued.json()
    assert (await edge.send("GET", "/keyspaces", Authorization=f"Bearer {token['token']}")).status_code == 200
    listed = (await edge.send("GET", path)).json()["items"]
    assert token["id"] in {one["id"] for one in listed}
    assert all("token" not in one for one in listed)
    revoked = await edge.send("POST", f"{path}/{token['id']}/revoke")
    assert (revoked.status_code, revoked.json()["effective"]) == (200, True)
    assert (await edge.send("GET", "/keyspaces", Authorization=f"Bearer {token['token']}")).status_code == 401


def test_every_operation_has_a_summary() -> None:
    documented: Callable[[Any], str | None] = lambda route: route.fn.__doc__  # noqa: E731 -- one line is all
    assert all(documented(route) for route in key_routes.ROUTES)


async def test_a_masked_key_or_keyspace_and_one_that_is_absent_are_the_same_bytes(edge: Edge) -> None:
    """Not status, headers, body or the number of commits tell a stranger that a key or a keyspace exists."""
    key = (await edge.made())["id"]
    absent_key = new_id("key", edge.desk.clock.now())
    _, stranger = await edge.desk.hire("stranger", ("key.*", "key/mine/*"), ("keyspace.*", "keyspace/mine"))
    bearer = {"authorization": f"Bearer {stranger.token.reveal()}", "x_request_id": "same"}
    attempts: list[tuple[str, str, Any]] = [
        ("GET", "/keys/{key}", None),
        ("PATCH", "/keys/{key}", {"name": "x"}),
        *[("POST", f"/keys/{{key}}/{verb}", None) for verb in ("rotate", "retire", "disable", "enable", "revoke")],
        ("GET", "/keyspaces/{keyspace}", None),
        ("PATCH", "/keyspaces/{keyspace}", {"description": "x"}),
        *[("POST", f"/keyspaces/{{keyspace}}/{verb}", None) for verb in ("disable", "enable", "rotate-pepper")],
        ("POST", "/keys", {"keyspace": "{keyspace}", "owner": "a", "purpose": "b"}),
    ]
    for method, path, body in attempts:
        seen = []
        for names in ({"key": key, "keyspace": "orders"}, {"key": absent_key, "keyspace": "absent"}):
            before = len(await edge.desk.news())
            filled = body and {name: value.format(**names) for name, value in body.items()}
            answer = await edge.send(method, path.format(**names), filled, **bearer)
            shown = answer.content
            for name in names.values():
                shown = shown.replace(name.encode(), b"<name>")
            seen.append((answer.status_code, dict(answer.headers), shown, len(await edge.desk.news()) - before))
        assert seen[0] == seen[1], (method, path)
        assert (seen[0][0], seen[0][3]) == (404, 1), (method, path)


async def test_looking_for_a_key_that_is_not_there_is_no_denial_for_who_may_read_all(edge: Edge) -> None:
    await edge.made()
    before = await edge.desk.news()
    for path in (
        f"/keys/{new_id('key', edge.desk.clock.now())}",
        "/keys/none",
        f"/keys/{'x' * 3000}",
        "/keyspaces/none",
    ):
        answer = await edge.send("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert await edge.desk.news() == before


async def test_names_that_cannot_be_are_not_there_for_a_stranger_either(edge: Edge) -> None:
    _, stranger = await edge.desk.hire("stranger")
    bearer = {"authorization": f"Bearer {stranger.token.reveal()}"}
    for name in ("~system", "%C3%BC", "a%20b", "*", "x" * 400, "x" * 3000):
        for path in (f"/keys/{name}", f"/keyspaces/{name}"):
            assert (await edge.send("GET", path, **bearer)).status_code == 404, path


async def test_the_names_of_plans_and_owners_that_clients_rely_on(edge: Edge) -> None:
    key = await edge.made()
    created = await edge.send("POST", "/plans", {"name": "basic", "limits": [LIMIT]})
    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    assert created.json()["limits"] == [LIMIT]
    moved = await edge.send("PATCH", f"/keys/{key['id']}", {"plan": "basic"})
    assert (moved.status_code, moved.json()["plan"], moved.json()["effective"]) == (200, "basic", True)
    owner = await edge.send("PATCH", "/owners/billing", {"plan": "basic"}, If_Match='"0"')
    assert (owner.status_code, owner.headers["etag"]) == (200, '"1"')
    assert (owner.json()["plan"], owner.json()["effective"], owner.json()["laggards"]) == ("basic", True, [])
    shown = (await edge.send("GET", "/plans/basic")).json()
    assert (shown["keys"], shown["owners"], shown["keyspaces"]) == (1, 1, 0)
    refused = await edge.send("POST", "/plans/basic/retire")
    assert (refused.status_code, refused.json()["code"]) == (409, "plan_in_use")
    await edge.send("POST", "/plans", {"name": "gold"})
    retired = await edge.send("POST", "/plans/basic/retire", {"move_to": "gold"}, If_Match='"1"')
    assert (retired.status_code, retired.json()["state"], retired.headers["etag"]) == (200, "retired", '"2"')
    refused = await edge.send("PATCH", f"/keys/{key['id']}", {"plan": "basic"})
    assert (refused.status_code, refused.json()["code"]) == (409, "plan_retired")
    assert [one["name"] for one in (await edge.send("GET", "/plans?state=active")).json()["items"]] == ["gold"]
    assert [one["name"] for one in (await edge.send("GET", "/owners?plan=gold")).json()["items"]] == ["billing"]
    assert (await edge.send("GET", "/owners/nobody")).status_code == 404


@pytest.mark.parametrize("name", ["team/shop", "a//b", "/", "..", "50%", "%2F", "a?b#c", "Zo\u00eb L.", "a" * 256])
async def test_an_owner_is_found_by_any_name_once_it_is_percent_encoded(edge: Edge, name: str) -> None:
    """No two names may meet in one path: what is set for one would hold for the keys of the other."""
    encoded = quote(name, safe="").replace(".", "%2E")
    changed = await edge.send("PATCH", f"/owners/{encoded}", {"limits": [LIMIT]})
    assert (changed.status_code, changed.json()["name"]) == (200, name)
    shown = await edge.send("GET", f"/owners/{encoded}")
    assert (shown.status_code, shown.json()["name"], shown.json()["revision"]) == (200, name, 1)
    assert [one["name"] for one in (await edge.send("GET", "/owners")).json()["items"]] == [name]
