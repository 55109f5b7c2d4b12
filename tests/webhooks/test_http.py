"""The routes of webhooks, over the real application: names, statuses, rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from keyturn.access.caller import Credentials
from keyturn.http import webhooks as routes
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from keyturn.webhooks.model import Answer
from keyturn.wire.webhooks import ENDPOINTS_MAX
from tests.webhooks.post import Post, url_of

API = "/api/v1/webhooks"
HOOK = {"name": "hook", "url": url_of("hook"), "events": ["keyspace.*"]}


@dataclass
class Edge:
    """A client of the application, and the post behind it."""

    post: Post
    client: httpx.AsyncClient

    async def send(
        self, method: str, path: str = "", body: Any = None, *, by: Credentials | None = None, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        token = (by or self.post.desk.admin).token.reveal()
        return await self.client.request(
            method, API + path, json=body, headers={"Authorization": f"Bearer {token}", **named}
        )


@pytest.fixture
async def edge(post: Post) -> AsyncIterator[Edge]:
    services = {"webhooks": post.webhooks, "deliveries": post.deliveries}
    app: Any = create_app(services, EdgeSettings(), protected=list(routes.ROUTES))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://keyturn") as client:
        yield Edge(post, client)


async def test_the_life_of_an_endpoint(edge: Edge) -> None:
    made = await edge.send("POST", "", HOOK)
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    document = made.json()
    assert document.pop("secret").startswith("whsec_")
    shown = await edge.send("GET", "/hook")
    assert shown.json() == document
    changed = await edge.send("PATCH", "/hook", {"events": ["key.*"], "description": "d"}, If_Match='"1"')
    assert (changed.status_code, changed.headers["etag"], changed.json()["events"]) == (200, '"2"', ["key.*"])
    assert (await edge.send("PATCH", "/hook", {"description": "x"}, If_Match='"1"')).status_code == 412
    assert (await edge.send("POST", "/hook/disable")).json()["state_reason"] == "asked"
    assert (await edge.send("POST", "/hook/disable")).headers["etag"] == '"3"'
    assert (await edge.send("POST", "/hook/enable")).json()["state"] == "active"
    listed = (await edge.send("GET")).json()
    assert [one["name"] for one in listed["items"]] == ["hook"]
    assert "secret" not in listed["items"][0]
    assert (await edge.send("POST", "/hook/delete")).json()["state"] == "deleted"
    assert (await edge.send("GET", "/hook")).status_code == 404
    assert (await edge.send("GET")).json()["items"] == []


async def test_a_secret_is_shown_once_and_is_nowhere_in_the_log(edge: Edge) -> None:
    """Neither the answer to a later read nor the audit log has the secret."""
    secret = (await edge.send("POST", "", HOOK)).json()["secret"]
    rotated = (await edge.send("POST", "/hook/rotate-secret", {"overlap_seconds": 60})).json()
    assert rotated["secret"] != secret
    assert rotated["overlap_until"] is not None
    log = b"".join(await edge.post.desk.leaf_bytes()).decode()
    for one in (secret, rotated["secret"]):
        assert one not in (await edge.send("GET", "/hook")).text
        assert one.removeprefix("whsec_") not in log


async def test_a_create_that_is_sent_twice_is_done_once(edge: Edge) -> None:
    first = await edge.send("POST", "", HOOK, Idempotency_Key="once")
    again = await edge.send("POST", "", HOOK, Idempotency_Key="once")
    assert first.json() == again.json()
    assert (await edge.send("POST", "", HOOK)).status_code == 409
    first = await edge.send("POST", "/hook/rotate-secret", {}, Idempotency_Key="turn")
    again = await edge.send("POST", "/hook/rotate-secret", {}, Idempotency_Key="turn")
    assert first.json()["secret"] == again.json()["secret"]
    assert again.json()["revision"] == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://8.8.8.8/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://u@hooks.example.com/"}, "url"),
        ({"events": ["keys.*"]}, "events"),
        ({"events": []}, "events"),
        ({"name": "Not A Name"}, "name"),
    ],
)
async def test_what_could_never_be_delivered_is_refused(edge: Edge, change: dict[str, Any], field: str) -> None:
    answer = await edge.send("POST", "", HOOK | change)
    assert answer.status_code == 400
    assert answer.json()["field"].startswith(field)
    await edge.send("POST", "", HOOK)
    if field != "name":
        assert (await edge.send("PATCH", "/hook", change)).status_code == 400


async def test_who_may_not_know_an_endpoint_is_told_that_there_is_none(edge: Edge) -> None:
    """Each operation asks for its own right; without any, an endpoint answers like one that does not exist."""
    await edge.send("POST", "", HOOK)
    _, nobody = await edge.post.desk.hire("nobody")
    _, reader = await edge.post.desk.hire("reader", ("webhook.read", "webhook/hook"))
    calls: list[tuple[str, str, Any]] = [
        ("PATCH", "/hook", {"description": "x"}),
        ("POST", "/hook/disable", {}),
        ("POST", "/hook/enable", {}),
        ("POST", "/hook/delete", {}),
        ("POST", "/hook/rotate-secret", {}),
        ("POST", "/hook/test", {}),
        ("POST", "/hook/redeliver", {"since": "2026-01-01T00:00:00Z"}),
    ]
    for method, path, body in calls:
        assert (await edge.send(method, path, body, by=nobody)).status_code == 404
        assert (await edge.send(method, path, body, by=reader)).status_code == 403
    for path in ("/hook", "/hook/deliveries"):
        assert (await edge.send("GET", path, by=nobody)).status_code == 404
        assert (await edge.send("GET", path, by=reader)).status_code == 200
    assert (await edge.send("POST", "", HOOK | {"name": "mine"}, by=reader)).status_code == 403
    assert (await edge.send("GET", by=nobody)).json()["items"] == []


async def test_another_workspace_finds_nothing(edge: Edge) -> None:
    """Endpoints and deliveries of a workspace do not exist for another."""
    await edge.send("POST", "", HOOK)
    tenant = await edge.post.desk.tenant("tenant")
    assert (await edge.send("GET", "/hook", by=tenant)).status_code == 404
    assert (await edge.send("GET", "/hook/deliveries", by=tenant)).status_code == 404
    assert (await edge.send("POST", "", HOOK, by=tenant)).status_code == 201


async def test_a_disabled_principal_manages_nothing_and_its_endpoint_goes_on(edge: Edge) -> None:
    """An endpoint belongs to the workspace, not to who made it."""
    post = edge.post
    principal, operator = await post.desk.hire("operator", ("webhook.*", "webhook/*"))
    assert (await edge.send("POST", "", HOOK, by=operator)).status_code == 201
    await post.desk.access.principals.disable(post.desk.admin, principal)
    assert (await edge.send("GET", "/hook", by=operator)).status_code == 401
    await post.desk.keyspace()
    await post.round()
    assert post.receiver.types() == ["keyspace.create"]


async def test_deliveries_are_listed_narrowed_and_paged(edge: Edge) -> None:
    post = edge.post
    await edge.send("POST", "", HOOK)
    for number in range(3):
        await post.desk.keyspace(f"orders-{number}")
        post.desk.clock.advance(1)
    await post.round()
    post.receiver.answers[url_of("hook")] = Answer(1, 500, "answered 500")
    await post.desk.keyspaces.disable(post.desk.admin, "orders-0")
    await post.round()
    everything = (await edge.send("GET", "/hook/deliveries")).json()["items"]
    assert [one["type"] for one in everything] == ["keyspace.disable", *["keyspace.create"] * 3]
    first = (await edge.send("GET", "/hook/deliveries?limit=3")).json()
    rest = (await edge.send("GET", f"/hook/deliveries?limit=3&cursor={first['next_cursor']}")).json()
    assert first["items"] + rest["items"] == everything
    assert rest["next_cursor"] is None
    for query, count in (
        ("state=pending", 1),
        ("state=delivered", 3),
        ("type=keyspace.disable", 1),
        (f"since={everything[0]['created_at']}", 1),
        (f"until={everything[0]['created_at']}", 3),
    ):
        assert len((await edge.send("GET", f"/hook/deliveries?{query}")).json()["items"]) == count
    assert (await edge.send("GET", "/hook/deliveries?state=lost")).status_code == 400
    assert (await edge.send("GET", "/hook/deliveries?since=yesterday")).status_code == 400


async def test_a_delivery_is_shown_and_sent_again(edge: Edge) -> None:
    post = edge.post
    await edge.send("POST", "", HOOK)
    await post.desk.keyspace()
    await post.round()
    (listed,) = (await edge.send("GET", "/hook/deliveries")).json()["items"]
    shown = (await edge.send("GET", f"/hook/deliveries/{listed['id']}")).json()
    assert shown["body"].encode() == post.receiver.messages[0].body
    assert [one["status"] for one in shown["attempt_log"]] == [204]
    again = await edge.send("POST", f"/hook/deliveries/{listed['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert (await edge.send("GET", "/hook/deliveries/msg_0000000000000000000000")).status_code == 404
    assert (await edge.send("POST", "/hook/deliveries/nothing/redeliver")).status_code == 404
    await edge.send("POST", "/hook/disable")
    assert (await edge.send("POST", f"/hook/deliveries/{listed['id']}/redeliver")).status_code == 409
    leaves = await post.desk.leaves("webhook.redeliver")
    assert [leaf["detail"] for leaf in leaves] == [{"delivery": listed["id"]}]


async def test_a_test_sends_a_ping_whatever_the_patterns_are(edge: Edge) -> None:
    await edge.send("POST", "", HOOK)
    sent = await edge.send("POST", "/hook/test")
    assert (sent.status_code, sent.json()["type"]) == (202, "webhook.ping")
    await edge.post.round()
    (message,) = edge.post.receiver.messages
    assert (message.type, message.id) == ("webhook.ping", sent.json()["id"])


async def test_a_workspace_has_a_bounded_number_of_endpoints(edge: Edge) -> None:
    for number in range(ENDPOINTS_MAX):
        assert (await edge.send("POST", "", HOOK | {"name": f"hook-{number}"})).status_code == 201
    refused = await edge.send("POST", "", HOOK)
    assert (refused.status_code, refused.json()["code"]) == (409, "cap_reached")
    await edge.send("POST", "/hook-0/delete")
    assert (await edge.send("POST", "", HOOK)).status_code == 201
