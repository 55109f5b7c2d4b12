"""Guards, approvals and wraps over HTTP: names, statuses, who needs a token and who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from keyturn.access.caller import Credentials
from keyturn.http import approvals, wraps
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from tests.vault.room import STRIPE, Room, opened_room

API = "/api/v1"
DATA = {"password": "held"}


@dataclass
class Edge:
    """A client of the application, and the room behind it."""

    room: Room
    client: httpx.AsyncClient

    async def send(
        self, method: str, path: str, body: Any = None, *, by: Credentials | None = None, **headers: str
    ) -> httpx.Response:
        """Send a request with a management token, the administrator's unless another is given."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        token = (by or self.room.desk.admin).token.reveal()
        return await self.client.request(
            method, API + path, json=body, headers={"Authorization": f"Bearer {token}", **named}
        )

    async def present(self, path: str, token: str, **more: Any) -> httpx.Response:
        """Present a wrap token, without a management token."""
        return await self.client.post(API + path, json={"token": token, **more})


@pytest.fixture
async def edge(migrated_database_url: str) -> AsyncIterator[Edge]:
    """The real routes over real services; the test runs on both databases."""
    async with opened_room(migrated_database_url) as room:
        services = {"approvals": room.approvals, "wraps": room.wraps, "sharing": room.sharing}
        app: Any = create_app(
            services,
            EdgeSettings(),
            protected=[*approvals.ROUTES, *wraps.ROUTES],
            public=list(wraps.OPEN_ROUTES),
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://keyturn") as client:
            yield Edge(room, client)


async def test_four_eyes_over_http(edge: Edge) -> None:
    person = (await edge.room.hire("ana", ("secret.*", "secret/production/*"), kind="user"))[1]
    made = await edge.send("POST", "/guards", {"pattern": "production/payments/*", "valid_seconds": 600})
    assert (made.status_code, made.json()["valid_seconds"]) == (201, 600)
    guard = made.json()["id"]
    assert (await edge.send("GET", f"/guards/{guard}")).json() == made.json()
    assert [one["id"] for one in (await edge.send("GET", "/guards")).json()["items"]] == [guard]

    held_back = await edge.send("POST", f"/secret-share/{STRIPE}", {}, by=person)
    assert (held_back.status_code, held_back.json()["code"]) == (403, "approval_required")
    wanted = {"path": STRIPE, "action": "secret.reveal", "reason": "an incident"}
    asked = await edge.send("POST", "/approvals", wanted, by=person)
    assert (asked.status_code, asked.headers["etag"], asked.json()["state"]) == (201, '"1"', "pending")
    approval = asked.json()["id"]
    own = await edge.send("POST", f"/approvals/{approval}/decide", {"approve": True, "reason": "me"}, by=person)
    assert own.status_code == 403
    decided = await edge.send("POST", f"/approvals/{approval}/decide", {"approve": True, "reason": "seen"})
    assert (decided.status_code, decided.json()["state"]) == (200, "approved")
    shown = await edge.send("GET", f"/approvals/{approval}", by=person)
    assert shown.headers["etag"] == '"2"'
    assert (await edge.send("GET", "/approvals?state=pending")).json()["items"] == []
    assert (await edge.send("GET", "/approvals?state=approved")).json()["items"] == [shown.json()]
    assert (await edge.send("POST", f"/secret-share/{STRIPE}", {}, by=person)).status_code == 201

    refused = await edge.send("POST", f"/guards/{guard}/revoke")
    assert (refused.status_code, refused.json()["code"]) == (403, "approval_required")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/guards", {"pattern": "production"}),
        ("/guards", {"pattern": "production/*", "actions": []}),
        ("/guards", {"pattern": "production/*", "actions": ["secret.everything"]}),
        ("/guards", {"pattern": "production/*", "valid_seconds": 1}),
        ("/guards", {"pattern": "production/*", "unknown": 1}),
        ("/approvals", {"action": "secret.reveal", "path": "production/x"}),
        ("/approvals", {"action": "secret.reveal", "path": "production/../x", "reason": "x"}),
        ("/approvals", {"action": "secret.reveal", "reason": "x"}),
        ("/wraps", {"data": ["a list"]}),
        ("/wraps", {"data": {}, "ttl_seconds": 0}),
        ("/wraps", {"data": {}, "ttl_seconds": 2_592_001}),
        ("/wraps/open", {}),
        ("/wraps/open", {"token": "x" * 257}),
        ("/wraps/open", {"token": "x", "more": 1}),
    ],
)
async def test_bad_input_is_refused_and_named(edge: Edge, path: str, body: dict[str, Any]) -> None:
    answer = await edge.send("POST", path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert answer.json().get("field")


async def test_a_wrap_over_http(edge: Edge) -> None:
    """The token is the credential: opening needs no other, and a management token opens nothing."""
    made = (await edge.send("POST", "/wraps", {"data": DATA, "ttl_seconds": 60})).json()
    looked = await edge.present("/wraps/lookup", made["token"])
    assert (looked.status_code, looked.json()["creation_path"]) == (200, "api/v1/wraps")
    assert "held" not in looked.text
    again = (await edge.present("/wraps/rewrap", made["token"])).json()
    opened = await edge.present("/wraps/open", again["token"])
    assert (opened.status_code, opened.json()["data"]) == (200, DATA)
    used = await edge.present("/wraps/open", again["token"])
    assert (used.status_code, used.json()["code"]) == (410, "wrap_used")
    management = edge.room.desk.admin.token.reveal()
    unknown = await edge.present("/wraps/open", management)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "wrap_unknown")
    assert management not in unknown.text
    assert (await edge.client.post(f"{API}/wraps", json={"data": DATA})).status_code == 401


async def test_wrong_tokens_answer_alike_byte_for_byte(edge: Edge) -> None:
    """Nothing tells a token that never was from one whose secret is wrong."""
    made = (await edge.send("POST", "/wraps", {"data": DATA})).json()
    other = (await edge.send("POST", "/wraps", {"data": DATA})).json()
    bodies = set()
    for token in (made["token"][:-1], other["token"][:20] + made["token"][20:], "junk"):
        answer = await edge.client.post(
            f"{API}/wraps/open", json={"token": token}, headers={"X-Request-Id": "req_same"}
        )
        assert answer.status_code == 404
        bodies.add(answer.content)
    assert len(bodies) == 1


async def test_a_wrap_is_created_once_per_idempotency_key(edge: Edge) -> None:
    first = await edge.send("POST", "/wraps", {"data": DATA}, Idempotency_Key="one")
    assert (await edge.send("POST", "/wraps", {"data": DATA}, Idempotency_Key="one")).json() == first.json()
    other = await edge.send("POST", "/wraps", {"data": {}}, Idempotency_Key="one")
    assert other.status_code == 422


async def test_sharing_over_http(edge: Edge) -> None:
    made = (await edge.send("POST", "/guards", {"pattern": "staging/*"})).json()
    assert made["revoked_at"] is None
    service = (await edge.room.hire("app", ("secret.*", "secret/production/*")))[1]
    shared = await edge.send("POST", f"/secret-share/{STRIPE}", {"ttl_seconds": 60}, by=service)
    assert shared.status_code == 201, shared.text
    opened = (await edge.present("/wraps/open", shared.json()["token"])).json()
    assert opened["data"] == {"path": STRIPE, "version": 1, "fields": {"token": "held"}}
