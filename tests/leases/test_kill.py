"""`kill -9` of real servers while accounts are made and dropped in a real PostgreSQL: none is ever unknown."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest

from keyturn.config import load_settings
from keyturn.kernel.clock import Clock
from keyturn.leases.connectors.installed import InstalledConnectors
from keyturn.leases.dispatcher import LeaseDispatcher
from keyturn.leases.endings import Endings
from keyturn.leases.rules import Timing
from keyturn.storage.engine import make_database
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.system import API, Start, client_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.postgres]

SLOW = [
    "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL {{expiration}}",
    "SELECT pg_sleep(0.5)",
]


class Provider:
    """The PostgreSQL in which accounts are made; another one than Keyturn's own."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def connection(self) -> dict[str, Any]:
        parts = urlsplit(self.server.url())
        return {
            "host": "127.0.0.1",
            "port": self.server.port,
            "username": parts.username,
            "password": parts.password,
            "tls": "disable",
        }

    def accounts(self) -> set[str]:
        found = self.server.query(r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'kt\_%'")
        return {line for line in found.splitlines() if line}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with PostgresServer.start(fsync=False) as server:
        yield Provider(server)


def set_up(server: RunningServer, provider: Provider, **role: Any) -> None:
    """Create the source `app` and its role `reader`."""
    with client_of(server) as client:
        body = {"name": "app", "kind": "postgresql", "connection": provider.connection()}
        made = client.post(f"{API}/credential-sources", json=body)
        assert made.status_code == 201, made.text
        made = client.post(f"{API}/credential-sources/app/roles", json={"name": "reader", "config": {}, **role})
        assert made.status_code == 201, made.text


def lease_rows(server: RunningServer, url: str | None, postgres: PostgresServer) -> dict[str, str]:
    """Return the state of each lease by its account, read from the database of a dead server."""
    if url is not None:
        found = postgres.query("SELECT account, state FROM lease", urlsplit(url).path.lstrip("/"))
        return dict(line.split("|") for line in found.splitlines() if line)
    with contextlib.closing(sqlite3.connect(server.data_dir / "keyturn.db")) as connection:
        return dict(connection.execute("SELECT account, state FROM lease").fetchall())


def sweep(server: RunningServer, url: str | None) -> None:
    """Do what a server does when every grace is over, at once, on the database of a dead one."""

    async def run() -> None:
        given = {"KEYTURN_DATA": str(server.data_dir)} | ({} if url is None else {"KEYTURN_DATABASE_URL": url})
        settings = load_settings(given)
        database = make_database(settings, Clock())
        await database.open()
        try:
            timing = Timing(grace=0.0, linger=0.0, first_pause=0.0)
            keyring = Keyring(load_provider(settings, create=False))
            endings = Endings(database, keyring, InstalledConnectors(), timing)
            await database.write(lambda t: make_due(t.connection))
            dispatcher = LeaseDispatcher(database, endings, "nod_sweeper")
            deadline = time.monotonic() + 120
            while await dispatcher.dispatch_once() or time.monotonic() < deadline:
                await dispatcher.settled()
                if not await database.read(waiting):
                    return
                await asyncio.sleep(0.05)
        finally:
            await database.close()

    asyncio.run(run())


def make_due(connection: Any) -> None:
    """Let the grace of every intent, and every pause and claim, be over."""
    connection.exec_driver_sql(
        "UPDATE lease SET due_at = 0, claimed_until = 0 WHERE state IN ('intent', 'abandoned', 'lingering', 'revoking')"
    )


def waiting(connection: Any) -> int:
    """Return how many leases are on their way to an end."""
    query = "SELECT count(*) FROM lease WHERE state IN ('intent', 'abandoned', 'lingering', 'revoking')"
    return int(connection.exec_driver_sql(query).scalar_one())


class Storm:
    """Clients that make and revoke leases until the server is gone."""

    def __init__(self, server: RunningServer, clients: int = 4) -> None:
        self.answered: dict[str, str] = {}
        self.revoked: set[str] = set()
        token = server.admin_token
        self._threads = [threading.Thread(target=self._blow, args=(server, token, number)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for thread in self._threads:
            thread.join()

    def is_under_way(self) -> bool:
        """Tell whether a few leases were answered."""
        return len(self.answered) >= 3

    def _blow(self, server: RunningServer, token: str, number: int) -> None:
        with client_of(server, token=token) as client, contextlib.suppress(httpx.HTTPError):
            while True:
                made = client.post(f"{API}/credential-sources/app/roles/reader/leases", json={})
                if made.status_code != 201:
                    return
                lease = made.json()
                account = lease["fields"]["username"]
                self.answered[account] = lease["id"]
                if number % 2:
                    ended = client.post(f"{API}/leases/{lease['id']}/revoke", json={})
                    if ended.status_code == 200 and ended.json()["state"] == "revoked":
                        self.revoked.add(account)


def test_no_account_is_unknown_however_a_server_is_killed(
    start_server: Start, server_database_url: str | None, postgres_server: PostgresServer, provider: Provider
) -> None:
    """Killed again and again at any moment of a creation or a revocation.

    Right after each kill every account has its row, and after the sweep only those of active leases exist.
    """
    server = start_server(server_database_url, env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"})
    set_up(server, provider)
    chance = random.Random(7)
    answered: dict[str, str] = {}
    revoked: set[str] = set()
    for _ in range(4):
        with Storm(server) as storm:
            until(storm.is_under_way)
            time.sleep(chance.uniform(0.0, 0.4))
            server.kill9()
        answered |= storm.answered
        revoked |= storm.revoked
        rows = lease_rows(server, server_database_url, postgres_server)
        assert provider.accounts() <= set(rows), "an account without a row"
        assert set(answered) <= set(rows)
        assert not revoked & provider.accounts(), "a revocation was answered and the account lives"
        server.restart()
    server.kill9()
    sweep(server, server_database_url)
    rows = lease_rows(server, server_database_url, postgres_server)
    active = {account for account, state in rows.items() if state == "active"}
    assert provider.accounts() == active
    assert set(rows.values()) <= {"active", "revoked", "failed"}
    assert answered


def test_a_kill_between_creation_and_answer_leaves_no_account(
    start_server: Start, server_database_url: str | None, postgres_server: PostgresServer, provider: Provider
) -> None:
    """The server is stopped when the account is there, or nearly so, and then killed; again until one was caught."""
    server = start_server(server_database_url, env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"})
    set_up(server, provider, config={"creation": SLOW})
    token = server.admin_token
    met: set[str] = set()
    chance = random.Random(11)
    for killed in range(20):
        if killed >= 5 and "intent" in met:
            break
        making = threading.Thread(target=_make_one, args=(server, token))
        making.start()
        before = provider.accounts()
        deadline = time.monotonic() + chance.uniform(0.05, 0.6)
        while time.monotonic() < deadline and provider.accounts() <= before:
            pass
        server.pause()
        server.kill9()
        making.join()
        rows = lease_rows(server, server_database_url, postgres_server)
        assert provider.accounts() <= set(rows)
        met |= set(rows.values())
        server.restart()
    assert "intent" in met
    server.kill9()
    sweep(server, server_database_url)
    rows = lease_rows(server, server_database_url, postgres_server)
    assert provider.accounts() == {account for account, state in rows.items() if state == "active"}


def _make_one(server: RunningServer, token: str) -> None:
    with client_of(server, token=token) as client, contextlib.suppress(httpx.HTTPError):
        client.post(f"{API}/credential-sources/app/roles/reader/leases", json={})


def test_leases_expire_on_time_over_a_kill_and_a_provider_that_was_away(
    start_server: Start, server_database_url: str | None, provider: Provider
) -> None:
    """A restart costs nothing, and what could not be dropped is tried again."""
    server = start_server(server_database_url, env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"})
    set_up(server, provider)
    with client_of(server) as client:
        path = f"{API}/credential-sources/app/roles/reader/leases"
        for _ in range(5):
            made = client.post(path, json={"ttl_seconds": 4}).json()
            # At once: on a busy machine the first may be over when the last is made.
            assert made["fields"]["username"] in provider.accounts()
    server.kill9()
    provider.server.kill()
    server.restart()
    time.sleep(3)
    provider.server.restart()
    deadline = time.monotonic() + 120
    while provider.accounts() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert provider.accounts() == set()
    with client_of(server) as client:
        while time.monotonic() < deadline:
            states = {one["state"] for one in client.get(f"{API}/leases").json()["items"]}
            if states == {"revoked"}:
                break
            time.sleep(0.2)
    assert states == {"revoked"}
