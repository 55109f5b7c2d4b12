"""The public Unkey SDK, unmodified, against a real server: only its base URL is another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from unkey.py import Unkey
from unkey.py.errors import (
    BadRequestErrorResponse,
    ForbiddenErrorResponse,
    NotFoundErrorResponse,
    UnauthorizedErrorResponse,
)

from keyturn.client import Keyturn
from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.filterwarnings("default")  # what the SDK and its libraries warn of is theirs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("unkey") / "data") as running:
        yield running


@pytest.fixture
def unkey(server: RunningServer) -> Iterator[Any]:
    with Unkey(root_key=server.admin_token, server_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def api_id(server: RunningServer) -> str:
    with Unkey(root_key=server.admin_token, server_url=server.url) as client:
        return str(client.apis.create_api(name="Payments API").data.api_id)


def new_key(unkey: Any, api_id: str, **more: Any) -> Any:
    return unkey.keys.create_key(api_id=api_id, **more).data


def test_an_api_is_a_keyspace(api_id: str, server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        assert keyturn.keyspace(api_id).description == "Payments API"


def test_a_key_is_created_verified_and_deleted(unkey: Any, api_id: str) -> None:
    made = new_key(
        unkey,
        api_id,
        name="billing",
        external_id="user_1",
        permissions=["orders.read", "orders.write"],
        meta={"plan": "pro", "seats": 3, "flags": ["a", {"b": None}]},
        expires=int(time.time() * 1000) + 3_600_000,
    )
    assert made.key.startswith("paymentsapi_live_")
    verdict = unkey.keys.verify_key(key=made.key, permissions="orders.read AND orders.write").data
    assert verdict.valid
    assert verdict.code == "VALID"
    assert (verdict.key_id, verdict.keyspace_id, verdict.name) == (made.key_id, api_id, "billing")
    assert verdict.meta == {"plan": "pro", "seats": 3, "flags": ["a", {"b": None}]}
    assert verdict.identity.external_id == "user_1"
    assert set(verdict.permissions) == {"orders.read", "orders.write"}
    lacking = unkey.keys.verify_key(key=made.key, permissions="orders.delete").data
    assert (lacking.valid, lacking.code) == (False, "INSUFFICIENT_PERMISSIONS")
    shown = unkey.keys.get_key(key_id=made.key_id).data
    assert made.key.startswith(shown.start)
    assert len(shown.start) < len(made.key) - 40
    unkey.keys.delete_key(key_id=made.key_id)
    gone = unkey.keys.verify_key(key=made.key).data
    assert (gone.valid, gone.code, gone.key_id) == (False, "NOT_FOUND", None)
    with pytest.raises(NotFoundErrorResponse):
        unkey.keys.get_key(key_id=made.key_id)


def test_who_a_key_is(unkey: Any, api_id: str) -> None:
    made = new_key(unkey, api_id, name="mine")
    found = unkey.keys.whoami(key=made.key).data
    assert (found.key_id, found.name, found.enabled) == (made.key_id, "mine", True)
    with pytest.raises(NotFoundErrorResponse):
        unkey.keys.whoami(key="nothing_live_" + "0" * 61)


def test_credits_are_spent_refused_and_changed(unkey: Any, api_id: str) -> None:
    made = new_key(unkey, api_id, credits={"remaining": 3, "refill": {"interval": "daily", "amount": 100}})
    codes = [unkey.keys.verify_key(key=made.key).data for _ in range(4)]
    assert [one.code for one in codes] == ["VALID", "VALID", "VALID", "USAGE_EXCEEDED"]
    assert unkey.keys.verify_key(key=made.key, credits={"cost": 0}).data.valid
    assert unkey.keys.update_credits(key_id=made.key_id, operation="increment", value=10).data.remaining == 10
    assert unkey.keys.verify_key(key=made.key, credits={"cost": 4}).data.valid
    _await_remaining(unkey, made.key_id, 6)
    assert unkey.keys.update_credits(key_id=made.key_id, operation="decrement", value=5).data.remaining == 1
    assert unkey.keys.update_credits(key_id=made.key_id, operation="set", value=0).data.remaining == 0
    assert unkey.keys.verify_key(key=made.key).data.code == "USAGE_EXCEEDED"
    unlimited = unkey.keys.update_credits(key_id=made.key_id, operation="set", value=None).data
    assert unlimited.remaining is None
    assert unkey.keys.verify_key(key=made.key).data.valid


def _await_remaining(unkey: Any, key_id: str, units: int) -> None:
    """A balance that is read is as its nodes last reported it, a second ago at most."""
    deadline = time.monotonic() + 120
    while unkey.keys.get_key(key_id=key_id).data.credits.remaining != units:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_limits_refuse(unkey: Any, api_id: str) -> None:
    limits = [
        {"name": "requests", "limit": 2, "duration": 3_600_000, "autoApply": True},
        {"name": "heavy", "limit": 10, "duration": 60_000},
    ]
    made = new_key(unkey, api_id, ratelimits=limits)
    first = unkey.keys.verify_key(key=made.key).data
    assert first.valid
    assert [(one.name, one.limit, one.remaining) for one in first.ratelimits] == [("requests", 2, 1)]
    assert unkey.keys.verify_key(key=made.key, ratelimits=[{"name": "heavy", "cost": 10}]).data.valid
    refused = unkey.keys.verify_key(key=made.key).data
    assert (refused.valid, refused.code) == (False, "RATE_LIMITED")
    assert refused.ratelimits[0].exceeded
    assert refused.ratelimits[0].reset > time.time() * 1000


def test_an_update_changes_what_it_names_and_nothing_else(unkey: Any, api_id: str) -> None:
    made = new_key(unkey, api_id, name="before", meta={"a": 1}, permissions=["x.y"], external_id="user_2")
    unkey.keys.update_key(key_id=made.key_id, name="after", enabled=False)
    shown = unkey.keys.get_key(key_id=made.key_id).data
    assert (shown.name, shown.meta, shown.permissions, shown.enabled) == ("after", {"a": 1}, ["x.y"], False)
    assert unkey.keys.verify_key(key=made.key).data.code == "DISABLED"
    unkey.keys.update_key(
        key_id=made.key_id,
        enabled=True,
        meta=None,
        permissions=[],
        credits={"remaining": 1},
        ratelimits=[{"name": "requests", "limit": 5, "duration": 1000, "autoApply": True}],
    )
    shown = unkey.keys.get_key(key_id=made.key_id).data
    assert (shown.meta, shown.permissions, shown.credits.remaining) == (None, None, 1)
    assert shown.identity.external_id == "user_2"
    assert [unkey.keys.verify_key(key=made.key).data.code for _ in range(2)] == ["VALID", "USAGE_EXCEEDED"]


def test_a_reroll_keeps_the_key_and_its_overlap(unkey: Any, api_id: str) -> None:
    made = new_key(unkey, api_id, credits={"remaining": 5})
    rolled = unkey.keys.reroll_key(key_id=made.key_id, expiration=3_600_000).data
    assert rolled.key != made.key
    assert rolled.key_id == made.key_id
    assert unkey.keys.verify_key(key=made.key).data.credits == 4
    assert unkey.keys.verify_key(key=rolled.key).data.credits == 3
    at_once = unkey.keys.reroll_key(key_id=made.key_id, expiration=0).data
    assert not unkey.keys.verify_key(key=rolled.key).data.valid
    assert unkey.keys.verify_key(key=at_once.key).data.valid


def test_a_key_is_verified_within_the_keyspaces_that_are_named(unkey: Any, api_id: str) -> None:
    made = new_key(unkey, api_id, credits={"remaining": 2})
    elsewhere = unkey.keys.verify_key(key=made.key, keyspaces=["another", "yet-another"]).data
    assert (elsewhere.valid, elsewhere.code) == (False, "NOT_FOUND")
    assert unkey.keys.verify_key(key=made.key, keyspaces=["another", api_id]).data.credits == 1


def test_keys_are_listed_page_by_page(unkey: Any) -> None:
    api_id = unkey.apis.create_api(name="Listing").data.api_id
    made = {new_key(unkey, api_id, external_id="user_3").key_id for _ in range(5)}
    found, cursor = set(), None
    while True:
        page = unkey.apis.list_keys(api_id=api_id, limit=2, cursor=cursor)
        assert page is not None
        result: Any = page.result
        found |= {one.key_id for one in result.data}
        cursor = result.pagination.cursor
        if not result.pagination.has_more:
            break
    assert found == made


def test_a_limit_on_anything(unkey: Any) -> None:
    asked: dict[str, Any] = {"namespace": "emails", "identifier": "user_1", "limit": 2, "duration": 60_000}
    answers = [unkey.ratelimit.limit(**asked).data for _ in range(3)]
    assert [one.success for one in answers] == [True, True, False]
    assert [one.remaining for one in answers] == [1, 0, 0]
    assert answers[2].reset > time.time() * 1000
    assert unkey.ratelimit.limit(**(asked | {"identifier": "user_2"})).data.success


# --- refusals ----------------------------------------------------------------------------------------------------


def test_what_has_no_counterpart_is_refused_with_its_reason(unkey: Any, api_id: str) -> None:
    for more, field in (
        ({"recoverable": True}, "recoverable"),
        ({"roles": ["admin"]}, "roles"),
        ({"prefix": "other"}, "prefix"),
        ({"ratelimits": [{"name": "A B", "limit": 1, "duration": 1000}]}, "ratelimits[0].name"),
        ({"ratelimits": [{"name": "a", "limit": 1, "duration": 1500}]}, "ratelimits[0].duration"),
    ):
        with pytest.raises(BadRequestErrorResponse) as caught:
            new_key(unkey, api_id, **more)
        assert caught.value.data.error.status == 400
        assert caught.value.data.error.errors[0].location == f"body.{field}"
        assert caught.value.data.meta.request_id


def test_a_root_key_that_is_none_is_unauthorized(server: RunningServer) -> None:
    with Unkey(root_key="unkey_nothing", server_url=server.url) as client:
        with pytest.raises(UnauthorizedErrorResponse):
            client.apis.create_api(name="x")
        with pytest.raises(UnauthorizedErrorResponse):
            client.keys.verify_key(key="x")


def test_what_a_token_may_not_know_is_not_there(server: RunningServer, unkey: Any, api_id: str) -> None:
    made = new_key(unkey, api_id)
    with httpx.Client(
        base_url=f"{server.url}/api/v1", headers={"Authorization": f"Bearer {server.admin_token}"}, timeout=120
    ) as http:
        principal = http.post("/principals", json={"kind": "service", "name": "narrow"}).json()["id"]
        token = http.post(f"/principals/{principal}/tokens", json={"name": "t"}).json()["token"]
    with Unkey(root_key=token, server_url=server.url) as narrow:
        assert narrow.keys.verify_key(key=made.key).data.code == "NOT_FOUND"
        with pytest.raises(NotFoundErrorResponse):
            narrow.keys.get_key(key_id=made.key_id)
        with pytest.raises((ForbiddenErrorResponse, NotFoundErrorResponse)):
            narrow.ratelimit.limit(namespace="n", identifier="i", limit=1, duration=1000)


@pytest.mark.parametrize("path", ["/v2/keys.nothing", "/v2/", "/v2/keys.createKey/x"])
def test_an_operation_that_is_not_there_is_answered_in_its_shape(server: RunningServer, path: str) -> None:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    answer = httpx.post(server.url + path, json={}, headers=headers, timeout=120)
    assert answer.status_code == 404
    assert answer.json()["error"]["status"] == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "text/plain"),
        (b'{"key":5}', "application/json"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_bad_request(server: RunningServer, body: bytes, kind: str) -> None:
    headers = {"Authorization": f"Bearer {server.admin_token}", "Content-Type": kind}
    answer = httpx.post(f"{server.url}/v2/keys.verifyKey", content=body, headers=headers, timeout=120)
    assert answer.status_code == 400
    assert answer.json()["error"]["errors"]
