"""Balances under load and `kill -9`: never a unit more than was granted, and every unit is accounted for."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.kernel.clock import Clock
from keyturn.quotas.inspection import discrepancies
from keyturn.storage.engine import make_database
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.waiting import PATIENCE_SECONDS, until
from tests.faults.nodes import Node, Verifiers, posted, service, verifiers
from tests.faults.system import API, Start, client_of, new_keyspace

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

AMOUNT = 1200
COST_MAX = 3


@pytest.fixture
def start_verifier(tmp_path: Path) -> Iterator[Verifiers]:
    with verifiers(tmp_path) as start:
        yield start


class Spender:
    """Spends at one node until nothing is left for it, and counts what it was told."""

    def __init__(self, node: Node, token: str, key: str) -> None:
        self.node = node
        self.admitted = 0
        self.unanswered = 0
        """Units that were asked for and may have been spent."""
        self._headers = {"Authorization": f"Bearer {token}"}
        self._key = key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for(self, admitted: int) -> None:
        """Wait until so much was admitted here."""
        assert until(lambda: self.admitted >= admitted or not self._thread.is_alive())
        assert self.admitted >= admitted

    def end(self) -> None:
        """Stop, with nothing under way."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait until nothing is left."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        chance = random.Random(self.node.url)
        refusals = 0
        with httpx.Client(base_url=self.node.url, headers=self._headers, timeout=120) as client:
            while refusals < 4 and not self._stop.is_set():
                cost = chance.randint(1, COST_MAX)
                try:
                    answer = client.post(f"{API}/verify", json={"key": self._key, "cost": cost})
                except httpx.TransportError:
                    self.unanswered += cost
                    return
                code = answer.json()["code"]
                if code == "VALID":
                    self.admitted += cost
                else:
                    assert code in {"USAGE_EXCEEDED", "UNAVAILABLE"}, code
                    # A node that could not ask the database in time may have spent nothing, or have nothing.
                    refusals += code == "USAGE_EXCEEDED"
                    self._stop.wait(0.3)


def credited_key(client: httpx.Client, amount: int = AMOUNT) -> dict[str, Any]:
    """Issue a key with a prepaid balance."""
    new_keyspace(client)
    rule = {"name": "credits", "amount": amount, "period": "none"}
    return posted(client, "/keys", keyspace="orders", owner="alice", purpose="faults", quotas=[rule])


def balance_of(client: httpx.Client, key_id: str) -> dict[str, Any]:
    """Return the balance, having seen that every unit of it is somewhere."""
    answer = client.get(f"{API}/quotas", params={"key": key_id})
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["items"]
    assert found["granted"] == found["spent"] + found["leased"] + found["stranded"] + found["available"]
    return dict(found)


def wrongs(url: str) -> list[str]:
    """Return what does not add up in the ledger."""

    async def look() -> list[str]:
        database = make_database(url, Clock())
        await database.open()
        try:
            return await database.read(discrepancies)
        finally:
            await database.close()

    return asyncio.run(look())


@pytest.mark.postgres
def test_nodes_that_are_killed_under_load_never_overspend_and_lose_no_unit(
    start_server: Start, start_verifier: Verifiers, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """Of two that are killed, one comes back with its folder and returns what it held; the other's is stranded."""
    first = start_server(postgres_url)
    settings = {"KEYTURN_KEK_PATH": str(first.data_dir / "kek")}
    back, gone = (start_server(postgres_url, env=settings) for _ in range(2))
    with client_of(first) as client:
        made = credited_key(client)
        rights = (("keyspace.replicate", "keyspace/orders"), ("key.verify", "key/orders/*"))
        inside = start_verifier(first.url, service(client, "replica", *rights)[1])
        token = first.admin_token
        nodes: list[Node] = [first, inside, back, gone]
        spenders = [Spender(node, token, made["key"]) for node in nodes]
        for one in spenders[2:]:
            one.wait_for(60)
        (gone_pid,) = _workers(client, gone.pids)
        back.kill9()
        gone.kill9()
        dead = spenders[2:]
        for one in dead:
            one.join()
        seen_at_kill = sum(one.admitted for one in spenders)
        assert seen_at_kill <= AMOUNT
        back.restart()
        spenders.append(Spender(back, token, made["key"]))
        for one in spenders:
            one.join()
        seen = sum(one.admitted for one in spenders)
        assert seen <= AMOUNT

        # Nobody waits a minute for the lease of the dead to end: its end is put into the past.
        database = postgres_url.rpartition("/")[2]
        held = f"state = 'leased' AND node IN (SELECT id FROM node WHERE label LIKE '%/{gone_pid}')"
        postgres_server.query(f"UPDATE quota_block SET lease_until = lease_until - 100 WHERE {held}", database)
        holding = f"SELECT count(*) FROM quota_block WHERE {held}"
        assert until(lambda: postgres_server.query(holding, database).strip() == "0")
        rest = [Spender(first, token, made["key"]), Spender(back, token, made["key"])]
        for one in rest:
            one.join()
        spenders += rest
        _account(client, made["id"], spenders, lost=dead[1])
    assert wrongs(postgres_url) == []


def _workers(client: httpx.Client, pids: list[int]) -> list[int]:
    """Return which of these processes are nodes."""
    labels = [one["label"] for one in client.get(f"{API}/nodes").json()["items"]]
    return [pid for pid in pids if any(label.endswith(f"/{pid}") for label in labels)]


def _account(client: httpx.Client, key_id: str, spenders: list[Spender], *, lost: Spender) -> None:
    """See that what clients were told is what the ledger says; what the lost node did not say is stranded."""
    found = balance_of(client, key_id)
    known = sum(one.admitted for one in spenders if one is not lost)
    unsure = sum(one.unanswered for one in spenders if one is not lost)
    assert found["granted"] == AMOUNT
    assert found["leased"] + found["available"] < 2 * COST_MAX, "less than a call costs"
    reported = found["spent"] - known
    assert reported >= 0, "what a living node admitted is spent"
    assert reported <= unsure + lost.admitted + lost.unanswered, "nothing is spent that nobody asked for"
    assert known + lost.admitted <= found["spent"] + found["stranded"]


def test_one_server_that_is_killed_under_load_admits_what_was_granted_to_the_unit(start_server: Start) -> None:
    """On SQLite: what was spent was counted before it was answered, so a kill hides only what was not answered."""
    server = start_server()
    with client_of(server) as client:
        made = credited_key(client)
    spenders: list[Spender] = []
    for _ in range(3):
        spenders += [Spender(server, server.admin_token, made["key"]) for _ in range(2)]
        spenders[-1].wait_for(80)
        server.kill9()
        for one in spenders[-2:]:
            one.join()
        server.restart()
    spenders += [Spender(server, server.admin_token, made["key"]) for _ in range(2)]
    for one in spenders[-2:]:
        one.join()
    admitted, unanswered = sum(one.admitted for one in spenders), sum(one.unanswered for one in spenders)
    with client_of(server) as client:
        found = balance_of(client, made["id"])
    server.stop()
    assert admitted <= AMOUNT
    assert found["stranded"] == 0
    assert admitted <= AMOUNT - found["available"] - found["leased"] <= admitted + unanswered
    assert found["available"] + found["leased"] < COST_MAX, "all was spent but less than a call costs"
    assert wrongs(f"sqlite:///{server.data_dir / 'keyturn.db'}") == []
