"""What gateways ask of a real Keyturn, asked without a gateway: tokens, introspection, and what is logged."""

from collections.abc import Callable

import httpx
import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import eventually
from tests.gateways.stack import PROXIES, Control

pytestmark = pytest.mark.slow


def _introspect(control: Control, key: str, **fields: str) -> httpx.Response:
    return httpx.post(
        f"{control.server.url}/oauth/introspect",
        auth=("any", control.token),
        data={"token": key, **fields},
        timeout=120,
    )


def _ask(control: Control, key: str, token: str, query: str = "") -> httpx.Response:
    headers = {"X-Keyturn-Token": token, "Authorization": f"Bearer {key}"}
    return httpx.get(f"{control.server.url}/auth/traefik{query}", headers=headers, timeout=120)


def test_introspection_follows_the_life_of_a_key(control: Control) -> None:
    issued = control.issue(scopes=["orders:read"], expires_in_seconds=3600)
    active = _introspect(control, issued["key"]).json()
    assert {name: active[name] for name in ("active", "scope", "client_id", "sub", "token_type")} == {
        "active": True,
        "scope": "orders:read",
        "client_id": issued["id"],
        "sub": "team-web",
        "token_type": "api_key",
    }
    assert isinstance(active["exp"], int)
    control.post(f"keys/{issued['id']}/revoke", reason="superseded")
    assert _introspect(control, issued["key"]).json() == {"active": False}
    assert _introspect(control, "no-such-key").json() == {"active": False}


def test_an_introspection_charges_limits_unless_told_otherwise(control: Control) -> None:
    key = control.issue(limits=[{"name": "burst", "limit": 1, "window_seconds": 3600}])["key"]
    assert _introspect(control, key, cost="0").json()["active"] is True
    assert _introspect(control, key).json()["active"] is True
    spent = _introspect(control, key)
    assert (spent.json(), int(spent.headers["retry-after"]) > 0) == ({"active": False}, True)


def test_a_token_verifies_its_own_keyspace_only(control: Control) -> None:
    """A gateway of one API learns nothing about the keys of another."""
    control.post("keyspaces", name="others", prefix="othr", environment="production")
    other = control.issue(keyspace="others")["key"]
    assert _ask(control, other, control.token).json()["code"] == "not_found"
    assert _ask(control, other, control.server.admin_token).status_code == 200
    assert _ask(control, other, control.server.admin_token, "?keyspace=orders").status_code == 401
    assert _introspect(control, other).json() == {"active": False}


def test_a_gateway_whose_token_was_revoked_admits_nobody(control: Control) -> None:
    """And its clients are not told that their keys are wrong."""
    principal = control.post("principals", kind="service", name="short-lived")["id"]
    control.post("grants", actions=["key.verify"], resource="key/orders/*", principal=principal)
    token = control.post(f"principals/{principal}/tokens", name="gateway")
    key = control.issue()["key"]
    assert _ask(control, key, token["token"]).status_code == 200
    eventually(lambda: control.post(f"principals/{principal}/tokens/{token['id']}/revoke")["effective"])
    answer = _ask(control, key, token["token"])
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_token")


def test_neither_key_nor_token_is_logged(start_server: Callable[..., RunningServer]) -> None:
    """Not at the most talkative level, nor in what is refused."""
    server = start_server(env={"KEYTURN_LOG_LEVEL": "debug", "KEYTURN_TRUSTED_PROXIES": PROXIES})
    control = Control(server)
    control.prepare()
    key = control.issue()["key"]
    for token in (control.token, f"{control.token}x"):
        for query in ("", f"?keyspace={key}", f"?{key}={token}", f"?scopes={key}", f"?scopes=(({key}"):
            _ask(control, key, token, query)
    httpx.get(
        f"{server.url}/auth/envoy/{key}?a={key}",
        headers={"X-Keyturn-Token": key, "X-Keyturn-Options": key},
        timeout=120,
    )
    _introspect(control, key, cost=key)
    httpx.post(f"{server.url}/oauth/introspect", auth=("any", key), data={"token": key}, timeout=120)
    server.stop()
    written = server.logs()
    for secret in (key, control.token):
        assert secret not in written
        assert secret.rpartition("_")[2][12:] not in written
