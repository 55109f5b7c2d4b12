"""The feeds as a server gives them."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from keyturn.testing.waiting import eventually
from keyturn.wire.replication import KEYSPACES_MAX
from tests.client.control import Control


def everything(control: Control, **query: Any) -> tuple[Any, list[Any]]:
    """Return the first page of a snapshot, and all its keys."""
    first = page = control.get("/replica/snapshot", **query)
    keys = []
    while page.get("next_cursor"):
        page = control.get("/replica/snapshot", cursor=page["next_cursor"], **query)
        keys += page.get("keys", [])
    return first, keys


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_snapshot_holds_what_may_be_replicated_and_no_more(control: Control) -> None:
    """Neither system keyspaces nor management tokens leave the server."""
    control.keyspace("users")
    keys = {control.issue().id, control.issue("users").id}
    first, found = everything(control)
    assert {one["name"] for one in first["keyspaces"]} == {"orders", "users"}
    assert {one["id"] for one in found} == keys
    assert all(len(base64.b64decode(pepper["value"])) == 32 for one in first["keyspaces"] for pepper in one["peppers"])
    only, found = everything(control, keyspaces="orders")
    assert [one["name"] for one in only["keyspaces"]] == ["orders"]
    assert len(found) == 1


def test_what_is_not_there_is_refused_like_what_is_not_allowed(control: Control) -> None:
    """A verifier cannot find out which keyspaces there are."""
    control.keyspace("users")
    token, _ = control.service("keyspace/orders")
    headers = {"Authorization": f"Bearer {token}"}
    answers = []
    for name in ("users", "nothing"):
        answer = control.http.get("/replica/snapshot", params={"keyspaces": name}, headers=headers)
        answers.append({**answer.json(), "instance": ""})
        assert answer.status_code == 403
    assert answers[0]["detail"].replace("users", "nothing") == answers[1]["detail"]


def test_a_poll_answers_with_what_changed(control: Control) -> None:
    first, _ = everything(control)
    cursor = {"log_id": first["log_id"], "after": first["seq"]}
    began = time.monotonic()
    nothing = control.get("/replica/changes", **cursor, wait_seconds=1)
    assert time.monotonic() - began >= 0.9
    assert nothing["seq"] == first["seq"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(control.get, "/replica/changes", **cursor)
        key = control.issue()
        news = waiting.result()
    assert [one["id"] for one in news["keys"]] == [key.id]
    assert news["seq"] > first["seq"]


def test_another_log_is_gone(control: Control) -> None:
    first, _ = everything(control)
    answer = control.http.get("/replica/changes", params={"log_id": "log_other", "after": first["seq"]})
    assert refusal(answer) == (410, "cursor_gone")


@pytest.mark.usefixtures("own_server")
def test_a_cursor_from_before_the_window_is_served_from_the_database(control: Control) -> None:
    first, _ = everything(control)
    keys = [control.issue().id for _ in range(3)]
    control.server.kill9()
    control.server.restart()
    news = control.get("/replica/changes", log_id=first["log_id"], after=first["seq"], wait_seconds=0)
    assert [one["id"] for one in news["keys"]] == keys


def test_nobody_confirms_or_removes_the_node_of_another(control: Control) -> None:
    """A verifier cannot make another one's changes look applied, nor have it forgotten."""
    node = control.post("/replica/nodes", label="mine")["node"]
    token, _ = control.service("keyspace/orders")
    headers = {"Authorization": f"Bearer {token}"}
    body = {"node": node, "log_id": "log_x", "applied": 10**6}
    answer = control.http.post("/replica/confirm", json=body, headers=headers)
    assert answer.json()["known"] is False
    assert control.http.post(f"/replica/nodes/{node}/deregister", json={}, headers=headers).status_code == 200
    (shown,) = control.verifiers()
    assert (shown["id"], shown["applied"]) == (node, -1)


def test_a_confirm_shows_how_far_a_node_is(control: Control) -> None:
    node = control.post("/replica/nodes", label="mine", keyspaces=["orders"])["node"]
    first, _ = everything(control)
    answer = control.post("/replica/confirm", node=node, log_id=first["log_id"], applied=first["seq"])
    assert answer["known"]
    assert answer["head"] >= first["seq"]
    assert answer["fresh_for"] == 60
    assert control.verifiers()[0]["applied"] == first["seq"]


@pytest.mark.usefixtures("own_server")
def test_verifiers_of_other_workspaces_hold_up_nobody(control: Control) -> None:
    """Another tenant's verifier neither delays a revocation nor is named by it."""
    made = control.post("/workspaces", name="other")
    other = httpx.Client(
        base_url=control.http.base_url, headers={"Authorization": f"Bearer {made['token']}"}, timeout=120
    )
    with other:
        body = {"name": "theirs", "prefix": "evil", "tag": "live", "environment": "production"}
        assert other.post("/keyspaces", json=body).status_code == 201
        assert other.post("/replica/nodes", json={"label": "slow"}).status_code == 201
        assert [node["kind"] for node in other.get("/nodes").json()["items"]] == ["server", "verifier"]
    assert not control.verifiers()
    key = control.issue()
    assert eventually(lambda: control.revoke(key)["effective"])


def test_a_batch_of_usage_counts_once(control: Control) -> None:
    """A batch that is sent again after a crash is not counted again."""
    key = control.issue()
    version = control.get(f"/keys/{key.id}")["versions"][0]["id"]
    now = time.time()
    item = {
        "version_id": version,
        "outcome": "VALID",
        "minute": int(now // 60) * 60,
        "count": 5,
        "first_at": now,
        "at": now,
        "ip": "192.0.2.7",
        "method": "GET",
        "path": "/orders",
    }
    unknown = {**item, "version_id": "A" * 12, "count": 2}
    batch = {"batch_id": "batch_0001", "items": [item, unknown]}
    assert control.post("/usage/batches", **batch) == {"counted": 5, "refused": 2, "repeated": False}
    assert control.post("/usage/batches", **batch) == {"counted": 0, "refused": 0, "repeated": True}
    assert control.get(f"/keys/{key.id}/usage")["totals"] == {"VALID": 5}
    token, _ = control.service("keyspace/other")
    answer = control.http.post(
        "/usage/batches", json={**batch, "batch_id": "batch_0002"}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.json() == {"counted": 0, "refused": 7, "repeated": False}


def test_names_and_cursors_that_are_none_are_refused(control: Control) -> None:
    for query in (
        {"keyspaces": "a,,b"},
        {"keyspaces": "a\x00b"},
        {"keyspaces": ",".join(f"k{number}" for number in range(KEYSPACES_MAX + 1))},
        {"cursor": "nonsense"},
    ):
        assert refusal(control.http.get("/replica/snapshot", params=query)) == (400, "invalid_input")


@pytest.mark.slow
def test_hundreds_may_wait(control: Control) -> None:
    """A change reaches everybody who waits, and waiting costs the database nothing."""
    first, _ = everything(control)
    query = {"log_id": first["log_id"], "after": first["seq"]}
    limits = httpx.Limits(max_connections=300)
    with (
        httpx.Client(base_url=control.http.base_url, headers=control.http.headers, timeout=120, limits=limits) as http,
        ThreadPoolExecutor(200) as pool,
    ):

        def news() -> Any:
            # A busy machine may let a poll end before the change comes; it is then asked again.
            return eventually(lambda: http.get("/replica/changes", params=query).json()["keys"])

        waiting = [pool.submit(news) for _ in range(200)]
        time.sleep(2.0)
        key = control.issue()
        answers = [one.result() for one in waiting]
    assert all([one["id"] for one in answer] == [key.id] for answer in answers)


@pytest.mark.usefixtures("own_server")
@pytest.mark.slow
@pytest.mark.cluster
def test_polls_end_when_the_server_stops(control: Control) -> None:
    """Long before they would end by themselves; only a machine that is very busy needs another try."""
    taken = []
    for _ in range(5):
        first, _ = everything(control)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(control.get, "/replica/changes", log_id=first["log_id"], after=first["seq"])
            time.sleep(0.5)
            began = time.monotonic()
            assert control.server.stop() == 0
            assert waiting.result()["seq"] == first["seq"]
        taken.append(time.monotonic() - began)
        if taken[-1] < 8:
            return
        control.server.restart()
    pytest.fail(f"polls went on for {taken} s")
