"""Limits over servers and verifiers with one Valkey: never a unit more than the limit says, and none while it is away.

Unless the rule says that its calls pass then.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.valkey import ValkeyServer
from keyturn.testing.waiting import until
from tests.faults.nodes import Node, Verifiers, patched, posted, service, told, verifiers
from tests.faults.system import API, Start, client_of, new_key, new_keyspace

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.postgres]

UNITS = 240
DAY = {"name": "day", "limit": UNITS, "window_seconds": 86_400}
SOFT = {"name": "soft", "limit": 100_000, "window_seconds": 86_400, "auto": False, "on_store_error": "allow"}
HARD = {**SOFT, "name": "hard", "on_store_error": "deny"}


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as server:
        yield server


@pytest.fixture
def start_verifier(tmp_path: Path) -> Iterator[Verifiers]:
    with verifiers(tmp_path) as start:
        yield start


class Hammer:
    """Asks nodes as fast as they answer, until each of them refuses or is gone."""

    def __init__(self, token: str, key: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._key = key
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self.codes: Counter[str] = Counter()
        self.units = 0
        self.unanswered = 0

    def run(self, node: Node, cost: int) -> None:
        with httpx.Client(base_url=node.url, headers=self._headers, timeout=120) as client:
            refusals = 0
            while refusals < 3:
                try:
                    answer = client.post(f"{API}/verify", json={"key": self._key, "cost": cost}).json()
                except httpx.TransportError:
                    with self._lock:
                        self.unanswered += cost
                    return
                admitted = answer["code"] == "VALID"
                refusals += not admitted
                with self._changed:
                    self.codes[answer["code"]] += 1
                    self.units += cost if admitted else 0
                    self._changed.notify_all()

    def wait_for(self, units: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.units >= units, 60)


def check_of(server: RunningServer, name: str) -> dict[str, Any]:
    """Return one check of a server's readiness."""
    found = httpx.get(f"{server.url}/health/ready", timeout=120)
    assert found.status_code == 200, "limits are no reason to be unready"
    return next(one for one in found.json()["checks"] if one["name"] == name)


def store_errors(server: RunningServer, decision: str) -> float:
    """Return how often a server decided without the store."""
    text = httpx.get(f"{server.url}/metrics", timeout=120).text
    lines = [line for line in text.splitlines() if line.startswith("keyturn_limit_store_errors_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'decision="{decision}"' in line)


def test_all_nodes_together_admit_what_the_limit_says_and_rules_decide_while_valkey_is_away(
    start_server: Start, start_verifier: Verifiers, postgres_url: str, valkey: ValkeyServer
) -> None:
    """Servers of one and of two workers and verifiers that ask them; one server is killed in the middle."""
    # A busy machine may let the store wait; here the counting is tested, and not the waiting.
    settings = {"KEYTURN_VALKEY_URL": f"{valkey.url}?socket_timeout=10"}
    first = start_server(postgres_url, env={**settings, "KEYTURN_WORKERS": "2"})
    settings["KEYTURN_KEK_PATH"] = str(first.data_dir / "kek")
    second, third = (start_server(postgres_url, env=settings) for _ in range(2))
    with client_of(first) as client:
        new_keyspace(client)
        patched(client, "/keyspaces/orders", limits=[DAY, SOFT, HARD])
        key, other = new_key(client)["key"], new_key(client)["key"]
        rights = (("keyspace.replicate", "keyspace/orders"), ("key.verify", "key/orders/*"))
        token = service(client, "replica", *rights)[1]
        inside = [start_verifier(one.url, token, label=f"v{one.port}") for one in (first, second)]
        hammer = Hammer(first.admin_token, key)
        nodes: list[Node] = [first, second, third, *inside]
        with ThreadPoolExecutor(len(nodes) + 1) as pool:
            running = [pool.submit(hammer.run, node, cost) for node, cost in zip(nodes, (1, 2, 1, 1, 2), strict=True)]
            running.append(pool.submit(hammer.run, first, 1))
            hammer.wait_for(UNITS // 3)
            third.kill9()
            for one in running:
                one.result()
        assert hammer.units <= UNITS < hammer.units + hammer.unanswered + 2, hammer.codes
        assert set(hammer.codes) == {"VALID", "RATE_LIMITED"}

        # What is left is less than each of them asked for: a unit at most.
        alive: list[Node] = [first, second, *inside]
        assert sum(told(client, node, {"key": key}) == "VALID" for node in alive) <= 1
        _rules_decide(client, [first, second], alive, other, valkey)
        assert {told(client, node, {"key": key}) for node in alive} == {"RATE_LIMITED"}, "counted as before"


def _rules_decide(
    client: httpx.Client, servers: list[RunningServer], nodes: list[Node], key: str, valkey: ValkeyServer
) -> None:
    """Take Valkey away and give it back; `day` and `hard` refuse meanwhile, `soft` does not."""

    def asked(node: Node, name: str) -> str:
        return told(client, node, {"key": key, "cost": 0, "limits": [{"name": name, "cost": 1}]})

    for node in nodes:
        assert (asked(node, "soft"), asked(node, "hard")) == ("VALID", "VALID")
    valkey.kill()
    for node in nodes:
        assert (asked(node, "soft"), asked(node, "hard")) == ("VALID", "RATE_LIMITED")
        assert told(client, node, {"key": key}) == "RATE_LIMITED"
    for server in servers:
        assert until(lambda: not check_of(server, "limit_store")["ok"])  # noqa: B023 -- used at once
        # Workers of one server share their numbers about once a second.
        assert until(lambda: store_errors(server, "allow") >= 1)  # noqa: B023 -- used at once
        assert until(lambda: store_errors(server, "deny") >= 1)  # noqa: B023 -- used at once
    valkey.restart()
    for node in nodes:
        assert until(lambda: asked(node, "hard") == "VALID")  # noqa: B023 -- used at once
    for server in servers:
        assert until(lambda: bool(check_of(server, "limit_store")["ok"]))  # noqa: B023 -- used at once
    assert posted(client, "/verify", key=key)["code"] == "VALID"
