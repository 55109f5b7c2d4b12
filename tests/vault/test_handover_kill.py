"""`kill -9` around the opening of wraps: at most one holder ever has an answer, whatever died when."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.system import API, Ledger, Start, client_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

WRAPS = 24


def wrapped(server: RunningServer, name: str) -> str:
    """Wrap something; return the token."""
    with client_of(server) as client:
        made = client.post(f"{API}/wraps", json={"data": {"name": name}, "ttl_seconds": 600})
        assert made.status_code == 201, made.text
        return str(made.json()["token"])


def opened(server: RunningServer, token: str) -> str | None:
    """Open a wrap; return what was in it, None when it was refused or nobody answered."""
    try:
        answer = httpx.post(f"{server.url}{API}/wraps/open", json={"token": token}, timeout=120)
    except httpx.HTTPError:
        return None
    return str(answer.json()["data"]["name"]) if answer.status_code == 200 else None


def ledger_of(server: RunningServer, url: str | None, request: pytest.FixtureRequest) -> Ledger:
    """Look into the server's database."""
    postgres: PostgresServer | None = request.getfixturevalue("postgres_server") if url is not None else None
    return Ledger(server.data_dir, url, postgres)


def test_a_death_between_claim_and_answer_loses_the_answer_and_never_gives_it_twice(
    start_server: Start, server_database_url: str | None, request: pytest.FixtureRequest
) -> None:
    """The holder does not hear, the server dies: the wrap counts as opened, and nothing of it is left."""
    server = start_server(server_database_url)
    ledger = ledger_of(server, server_database_url, request)
    token = wrapped(server, "unheard")
    body = json.dumps({"token": token}).encode()
    address = urlsplit(server.url)
    head = f"POST {API}/wraps/open HTTP/1.1\r\nHost: keyturn\r\nContent-Type: application/json\r\n"
    with socket.create_connection((address.hostname, address.port or 80)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert until(lambda: ledger.rows("SELECT state FROM wrap") == [("used",)])
        server.kill9()
    server.restart()
    assert opened(server, token) is None
    looked = httpx.post(f"{server.url}{API}/wraps/lookup", json={"token": token}, timeout=120)
    assert (looked.status_code, looked.json()["code"]) == (410, "wrap_used")
    assert ledger.rows("SELECT count(*) FROM wrap WHERE sealed IS NOT NULL") == [("0",)]
    with client_of(server) as client:
        items = client.get(f"{API}/audit", params={"action": "system.unwrap"}).json()["items"]
    assert len(items) == 1


def test_wraps_opened_while_the_server_is_killed_are_opened_at_most_once(
    start_server: Start, server_database_url: str | None, request: pytest.FixtureRequest
) -> None:
    """Two holders race for each wrap while the server dies; what was not opened then can be opened once after."""
    server = start_server(server_database_url)
    ledger = ledger_of(server, server_database_url, request)
    tokens = [wrapped(server, f"wrap-{number}") for number in range(WRAPS)]
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(opened, server, token) for token in tokens for _ in range(2)]
        until(lambda: sum(one.done() for one in running) > WRAPS // 2)
        server.kill9()
        before = [one.result() for one in running]
    server.restart()
    heard = [name for name in before if name is not None]
    assert len(heard) == len(set(heard))
    used = int(ledger.rows("SELECT count(*) FROM wrap WHERE state = 'used'")[0][0])
    assert used >= len(heard)
    after = [name for token in tokens for _ in range(2) if (name := opened(server, token)) is not None]
    assert len(after) == WRAPS - used
    assert not set(after) & set(heard)
    assert ledger.rows("SELECT count(*) FROM wrap WHERE sealed IS NOT NULL") == [("0",)]
