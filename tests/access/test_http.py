"""The routes: what each operation answers, and that it answers problems for everything else."""

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from keyturn.access.caller import Credentials
from keyturn.http.access import ROUTES
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from tests.access.house import House

NOT_THERE = "prn_0000000000000000000000"


class Api:
    """The API of a house, as one caller sees it."""

    def __init__(self, client: httpx.AsyncClient, house: House) -> None:
        self._client = client
        self.house = house

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: Credentials | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        token = (by or self.house.admin).token.reveal()
        return await self._client.request(
            method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {token}", **(headers or {})}
        )

    async def made(self, path: str, body: Any, **more: Any) -> Any:
        answer = await self.call("POST", path, body, **more)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def anonymous(self, method: str, path: str) -> httpx.Response:
        return await self._client.request(method, f"/api/v1{path}", json={})


@pytest.fixture
async def api(house: House) -> AsyncIterator[Api]:
    app = create_app({"access": house.access}, EdgeSettings(), protected=ROUTES)
    transport = httpx.ASGITransport(app=cast("Any", app))
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test") as client:
        yield Api(client, house)


async def test_the_life_of_a_principal_with_a_role_and_a_grant(api: Api) -> None:
    bot = await api.made("/principals", {"kind": "agent", "name": "bot", "metadata": {"team": "pay"}})
    assert (await api.call("GET", f"/principals/{bot['id']}")).json() == bot
    await api.made("/roles", {"name": "ops", "description": "keeps it running"})
    assigned = await api.call("POST", "/roles/ops/members", {"principal": bot["id"]})
    assert (assigned.status_code, assigned.json()["members"][0]["principal"]) == (200, bot["id"])
    grant = await api.made(
        "/grants",
        {
            "role": "ops",
            "actions": ["key.read"],
            "resource": "key/orders/*",
            "conditions": {"environments": ["production"], "not_after": "2027-01-01T00:00:00+01:00"},
        },
    )
    assert grant["conditions"]["not_after"] == "2026-12-31T23:00:00.000Z"
    listed = (await api.call("GET", f"/grants?principal={bot['id']}&state=active")).json()
    assert [one["id"] for one in listed["items"]] == [grant["id"]]
    question = {
        "principal": bot["id"],
        "action": "key.read",
        "resource": "key/orders/key_1",
        "environment": "production",
    }
    assert (await api.call("POST", "/access/explain", question)).json()["allowed"] is True
    revoked = (await api.call("POST", f"/grants/{grant['id']}/revoke", {})).json()
    assert (revoked["state"], revoked["effective"]) == ("revoked", True)
    assert (await api.call("POST", "/access/explain", question)).json()["allowed"] is False
    removed = await api.call("POST", f"/roles/ops/members/{bot['id']}/remove", {})
    assert (removed.status_code, removed.json()["members"]) == (200, [])
    for verb, state in (("disable", "disabled"), ("enable", "active")):
        answer = await api.call("POST", f"/principals/{bot['id']}/{verb}", {})
        assert (answer.status_code, answer.json()["state"], answer.json()["effective"]) == (200, state, True)
    for path in ("/principals?kind=agent", "/roles", "/roles/ops", f"/grants/{grant['id']}", "/workspaces", "/whoami"):
        assert (await api.call("GET", path)).status_code == 200


async def test_a_workspace_is_created_once_under_a_key_and_its_token_works(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await api.made("/workspaces", {"name": "acme"}, headers=headers)
    assert await api.made("/workspaces", {"name": "acme"}, headers=headers) == first
    other = await api.call("POST", "/workspaces", {"name": "acme", "keys_max": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    token = first["token"]
    owner = api.house.tokens.owners[token][0]
    assert owner.workspace == first["id"]
    taken = await api.call("POST", "/workspaces", {"name": "acme"})
    assert (taken.status_code, taken.json()["code"], taken.json()["field"]) == (409, "duplicate", "name")


async def test_updates_go_by_etag(api: Api) -> None:
    bot = await api.made("/principals", {"kind": "agent", "name": "bot"})
    path = f"/principals/{bot['id']}"
    etag = (await api.call("GET", path)).headers["etag"]
    assert etag == '"1"'
    changed = await api.call("PATCH", path, {"name": "robot"}, headers={"If-Match": etag})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    stale = await api.call("PATCH", path, {"name": "bot"}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "revision_mismatch")
    await api.made("/workspaces", {"name": "acme", "keys_max": 5})
    lifted = await api.call("PATCH", "/workspaces/acme", {"keys_max": None}, headers={"If-Match": '"1"'})
    assert (lifted.status_code, lifted.json()["keys_max"], lifted.headers["etag"]) == (200, None, '"2"')


OPERATIONS = [
    ("POST", "/workspaces"),
    ("GET", "/workspaces"),
    ("GET", "/workspaces/default"),
    ("PATCH", "/workspaces/default"),
    ("POST", "/principals"),
    ("GET", "/principals"),
    ("GET", "/principals/prn_x"),
    ("PATCH", "/principals/prn_x"),
    ("POST", "/principals/prn_x/disable"),
    ("POST", "/principals/prn_x/enable"),
    ("POST", "/roles"),
    ("GET", "/roles"),
    ("GET", "/roles/ops"),
    ("POST", "/roles/ops/members"),
    ("POST", "/roles/ops/members/prn_x/remove"),
    ("POST", "/grants"),
    ("GET", "/grants"),
    ("GET", "/grants/grt_x"),
    ("POST", "/grants/grt_x/revoke"),
    ("POST", "/access/explain"),
    ("GET", "/whoami"),
]


def test_every_operation_is_in_the_table_of_those_that_need_a_token() -> None:
    assert len(OPERATIONS) == len(ROUTES)


async def test_without_a_token_every_operation_is_refused(api: Api) -> None:
    """The guard is on the router; a route that escaped it would show here."""
    for method, path in OPERATIONS:
        answer = await api.anonymous(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["content-type"] == "application/problem+json"


MALFORMED: list[tuple[str, Any, str]] = [
    ("/workspaces", {"name": "Acme"}, "name"),
    ("/workspaces", {"name": "acme\n"}, "name"),
    ("/workspaces", {"name": "~acme"}, "name"),
    ("/workspaces", {"name": "a" * 64}, "name"),
    ("/workspaces", {"name": "acme", "keys_max": -1}, "keys_max"),
    ("/workspaces", {"name": "acme", "keys_max": "5"}, "keys_max"),
    ("/workspaces", {"name": "acme", "caps": 1}, "caps"),
    ("/workspaces", {}, "name"),
    ("/principals", {"kind": "robot", "name": "x"}, "kind"),
    ("/principals", {"kind": "user", "name": ""}, "name"),
    ("/principals", {"kind": "user", "name": "a\u0000b"}, "name"),
    ("/principals", {"kind": "user", "name": "a\u202eb"}, "name"),
    ("/principals", {"kind": "user", "name": "x" * 300}, "name"),
    ("/principals", {"kind": "user", "name": "x", "metadata": {"a": 1}}, "metadata"),
    ("/roles", {"name": "a/b"}, "name"),
    ("/roles", {"name": "~ops"}, "name"),
    ("/roles/ops/members", {}, "principal"),
    ("/grants", {"actions": [], "resource": "*", "principal": "p"}, "actions"),
    ("/grants", {"actions": ["key.isue"], "resource": "*", "principal": "p"}, "actions"),
    ("/grants", {"actions": ["system.alarm"], "resource": "*", "principal": "p"}, "actions"),
    ("/grants", {"actions": ["*"], "resource": "a//b", "principal": "p"}, "resource"),
    ("/grants", {"actions": ["*"], "resource": "*"}, "principal"),
    ("/grants", {"actions": ["*"], "resource": "*", "principal": "p", "conditions": {"cidrs": ["1.2.3"]}}, "cidrs"),
    (
        "/grants",
        {"actions": ["*"], "resource": "*", "principal": "p", "conditions": {"not_after": "2026-01-01T00:00:00"}},
        "not_after",
    ),
    (
        "/grants",
        {"actions": ["*"], "resource": "*", "principal": "p", "conditions": {"not_after": "0001-01-01T00:00:00Z"}},
        "not_after",
    ),
    ("/grants", {"actions": ["*"], "resource": "*", "principal": "p", "conditions": {"weekday": 1}}, "weekday"),
    ("/access/explain", {"action": "key.fly", "resource": "key/a/b"}, "action"),
    ("/access/explain", {"action": "key.read", "resource": "key/*"}, "resource"),
]


async def test_malformed_input_names_the_field(api: Api) -> None:
    for path, body, field in MALFORMED:
        answer = await api.call("POST", path, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), (path, body, answer.text)
        assert field in answer.json()["field"], (path, body)


async def test_a_masked_thing_and_one_that_is_absent_are_the_same_bytes_but_for_name_and_request(api: Api) -> None:
    """The whole answer is compared: status, headers, body."""
    _, stranger = await api.house.hire("stranger")
    there = api.house.founded.principal.id
    for method, verb in (("GET", ""), ("PATCH", ""), ("POST", "/disable"), ("POST", "/enable")):
        answers = []
        for name in (there, NOT_THERE[: len(there)].ljust(len(there), "0")):
            answer = await api.call(method, f"/principals/{name}{verb}", None if method == "GET" else {}, by=stranger)
            shown = answer.json() | {"instance": ""}
            headers = {key: value for key, value in answer.headers.items() if key != "x-request-id"}
            answers.append((answer.status_code, headers, str(shown).replace(name, "")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


async def test_an_operation_that_needs_no_body_takes_none(api: Api) -> None:
    bot = await api.made("/principals", {"kind": "agent", "name": "bot"})
    await api.made("/roles", {"name": "ops"})
    await api.call("POST", "/roles/ops/members", {"principal": bot["id"]})
    grant = await api.made("/grants", {"principal": bot["id"], "actions": ["key.read"], "resource": "key/*"})
    for path in (
        f"/principals/{bot['id']}/disable",
        f"/principals/{bot['id']}/enable",
        f"/roles/ops/members/{bot['id']}/remove",
        f"/grants/{grant['id']}/revoke",
    ):
        assert (await api.call("POST", path)).status_code == 200, path
        unknown = await api.call("POST", path, {"force": True})
        assert (unknown.status_code, unknown.json()["field"]) == (400, "force"), path


async def test_who_may_read_but_not_act_gets_403(api: Api) -> None:
    _, reader = await api.house.hire("reader", ("principal.read", "*"))
    answer = await api.call("POST", f"/principals/{api.house.founded.principal.id}/disable", {}, by=reader)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
