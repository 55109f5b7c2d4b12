"""`kill -9` of a real server under load: what it counted is stored, or known to be lost, to the unit."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import eventually
from tests.faults.system import API, Start, client_of, new_keyspace

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CLIENTS = 4


class Load:
    """Verifies as fast as it can from several clients, and counts the answers it got."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self._server = server
        self._body = {"key": key, "method": "GET", "path": "/orders", "country": "DE"}
        self._stop = threading.Event()
        self.answered = 0
        self.unanswered = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop asking; whatever was asked is answered when this returns, unless the server is gone."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        while self.answered < count:
            self._stop.wait(0.01)

    def _run(self) -> None:
        with client_of(self._server) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(f"{API}/verify", json=self._body)
                except httpx.HTTPError:
                    with self._lock:
                        self.unanswered += 1
                    return
                assert answer.json()["valid"], answer.text
                with self._lock:
                    self.answered += 1


def issued(server: RunningServer) -> tuple[str, str]:
    """Issue a key; return its id and the key."""
    with client_of(server) as client:
        new_keyspace(client, "orders")
        made = client.post(f"{API}/keys", json={"keyspace": "orders", "owner": "o", "purpose": "load"})
        return made.json()["id"], made.json()["key"]


def accounts(server: RunningServer, key_id: str, *, killed: int) -> tuple[int, int]:
    """Return what is stored of a key and what is known to be lost, once every kill was looked into."""
    with client_of(server) as client:
        eventually(lambda: server.logs().count("usage of a killed process was settled") >= killed)
        stored = _get(client, "/usage", key=key_id)["totals"].get("VALID", 0)
        by_endpoint = _get(client, "/usage/top", dimension="endpoint", key=key_id)["items"]
        assert [one["count"] for one in by_endpoint] == ([stored] if stored else [])
        return stored, _get(client, "/usage/losses")["lost"]


def _get(client: httpx.Client, path: str, **asked: str) -> Any:
    answer = client.get(f"{API}{path}", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_answered_verification_is_stored_or_known_to_be_lost(
    start_server: Start, server_database_url: str | None
) -> None:
    """Killed with nothing under way: what the clients counted is what is stored and what is lost, exactly."""
    server = start_server(server_database_url)
    key_id, key = issued(server)
    answered = 0
    for killed in range(1, 4):
        load = Load(server, key)
        load.start()
        load.wait_for(200)
        load.end()
        server.kill9()
        answered += load.answered
        server.restart()
        stored, lost = accounts(server, key_id, killed=killed)
        assert stored + lost == answered
    assert stored > 0


def test_a_kill_under_load_hides_nothing(start_server: Start, server_database_url: str | None) -> None:
    """Killed in the middle of requests: at most what each client had under way is counted on top."""
    server = start_server(server_database_url)
    key_id, key = issued(server)
    load = Load(server, key)
    load.start()
    load.wait_for(500)
    server.kill9()
    load.end()
    server.restart()
    stored, lost = accounts(server, key_id, killed=1)
    assert load.answered <= stored + lost <= load.answered + load.unanswered
    assert load.unanswered <= CLIENTS


def test_a_server_that_stops_loses_nothing(start_server: Start, server_database_url: str | None) -> None:
    server = start_server(server_database_url)
    key_id, key = issued(server)
    load = Load(server, key)
    load.start()
    load.wait_for(200)
    load.end()
    server.stop()
    assert list(server.data_dir.glob("*.counters")) == []
    server.restart()
    assert accounts(server, key_id, killed=0) == (load.answered, 0)
