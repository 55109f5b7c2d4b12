"""A plan with scopes, a quota and a limit of calls at once, from its making to a slot given back, over HTTP."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.slow


def test_a_plan_is_enforced_from_its_making_on(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"}, timeout=120
    ) as client:

        def post(path: str, **body: Any) -> dict[str, Any]:
            answer = client.post(f"/api/v1/{path}", json=body)
            assert answer.status_code in {200, 201}, answer.text
            said: dict[str, Any] = answer.json()
            return said

        at_once = {"name": "at-once", "limit": 1, "window_seconds": 60, "kind": "concurrency"}
        post("plans", name="gold", scopes=["orders:read"], quotas=[{"name": "monthly", "amount": 2}])
        post("keyspaces", name="orders", prefix="acme", environment="dev", default_plan="gold", limits=[at_once])
        key = post("keys", keyspace="orders", owner="alice", purpose="test")["key"]

        first = post("verify", key=key, scopes="orders:read")
        assert (first["code"], first["plan"], first["scopes"]) == ("VALID", "gold", ["orders:read"])
        assert post("verify", key=key)["code"] == "RATE_LIMITED"
        assert post("verify/release", slots=first["slots"]) == {"released": 1}
        second = post("verify", key=key, explain=True)
        assert second["code"] == "VALID"
        sources = {check["check"]: check["source"] for check in second["checks"]}
        assert (sources["plan"], sources["quota:monthly"], sources["limit:at-once"]) == ("keyspace", "plan", "keyspace")
        post("verify/release", slots=second["slots"])
        assert post("verify", key=key)["code"] == "USAGE_EXCEEDED"
