"""Limits through real servers: over several workers and nodes with Valkey, and when Valkey is away."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.valkey import ValkeyServer
from keyturn.testing.waiting import eventually

pytestmark = pytest.mark.slow

Start = Callable[..., RunningServer]
CLIENTS = 6
SECONDS_MAX = 20.0


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as server:
        yield server


def _client(server: RunningServer, token: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=120)


def _key(client: httpx.Client, *limits: dict[str, Any]) -> str:
    space = {"name": "orders", "prefix": "acme", "environment": "dev", "limits": limits}
    made = client.post("/api/v1/keyspaces", json=space)
    assert made.status_code == 201, made.text
    issued = client.post("/api/v1/keys", json={"keyspace": "orders", "owner": "alice", "purpose": "test"})
    assert issued.status_code == 201, issued.text
    return str(issued.json()["key"])


@pytest.mark.postgres
@pytest.mark.cluster
def test_two_servers_of_two_workers_admit_together_what_the_limit_says(
    start_server: Start, postgres_url: str, valkey: ValkeyServer
) -> None:
    """A limit is not multiplied by the processes that enforce it."""
    # A busy machine may let the store wait; here the counting is tested, and not the waiting.
    settings = {"KEYTURN_WORKERS": "2", "KEYTURN_VALKEY_URL": f"{valkey.url}?socket_timeout=10"}
    first = start_server(postgres_url, env=settings)
    kek = first.data_dir / "kek"
    second = start_server(postgres_url, env={**settings, "KEYTURN_KEK_PATH": str(kek)})
    token = first.admin_token
    with _client(first, token) as client:
        key = _key(
            client,
            {"name": "day", "limit": 100, "window_seconds": 86_400},
            {"name": "at-once", "limit": 60, "window_seconds": 3600, "kind": "concurrency"},
        )

        def hammer(server: RunningServer) -> list[str]:
            # Each request on a connection of its own, so that every worker gets some.
            headers = {"Connection": "close"}
            with _client(server, token) as own:
                answers = [own.post("/api/v1/verify", json={"key": key}, headers=headers).json() for _ in range(30)]
            return [str(answer["code"]) for answer in answers]

        with ThreadPoolExecutor(CLIENTS) as pool:
            found = Counter(code for codes in pool.map(hammer, [first, second] * (CLIENTS // 2)) for code in codes)
        assert found == {"VALID": 60, "RATE_LIMITED": 120}
        refused = client.post("/api/v1/verify", json={"key": key})
        assert refused.headers["RateLimit-Policy"].startswith('"day";q=100;w=86400')
        assert refused.json()["limits"][0]["remaining"] == 40
        checks = {one["name"]: one for one in client.get("/health/ready").json()["checks"]}
        assert checks["limit_store"]["ok"] is True


def test_without_valkey_each_limit_decides_and_the_server_stays_ready(
    start_server: Start, valkey: ValkeyServer
) -> None:
    """The store of limits going away stops nobody's API whose limits say `allow`, and opens nobody's who say `deny`."""
    server = start_server(env={"KEYTURN_VALKEY_URL": valkey.url})
    with _client(server, server.admin_token) as client:
        key = _key(
            client,
            {"name": "soft", "limit": 1000, "window_seconds": 60, "on_store_error": "allow"},
            {"name": "hard", "limit": 1000, "window_seconds": 60, "auto": False},
        )

        def verify(*named: str) -> dict[str, Any]:
            limits = [{"name": name} for name in named]
            found: dict[str, Any] = client.post("/api/v1/verify", json={"key": key, "limits": limits}).json()
            return found

        assert [verify()["code"], verify("hard")["code"]] == ["VALID", "VALID"]
        valkey.kill()

        assert [verify()["code"], verify("hard")["code"], verify()["code"]] == ["VALID", "RATE_LIMITED", "VALID"]
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        checks = {one["name"]: one for one in ready.json()["checks"]}
        assert (checks["limit_store"]["ok"], checks["limit_store"]["required"]) == (False, False)
        metrics = client.get("/metrics").text
        assert 'decision="allow"' in metrics
        assert "keyturn_limit_store_up{" in metrics

        valkey.restart()
        eventually(lambda: verify("hard")["code"] == "VALID")
    assert valkey.url.split("@")[0].rpartition(":")[2] not in server.log.read_text()
