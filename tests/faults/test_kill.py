"""`kill -9` under load: whatever was acknowledged is there, whatever was not can be sent again, and the log verifies.

Each writer changes keys of its own, one request after another, so it knows of every key what must be so.  When the
server is killed each has at most one request whose outcome it does not know.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.postgres import PostgresServer
from keyturn.testing.waiting import until_async
from tests.faults.system import (
    API,
    Ledger,
    Start,
    async_client_of,
    checkpoint_of,
    client_of,
    new_keyspace,
    verified_log,
    verifier_key_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ROUNDS = 3
WRITERS = 6
KEYS_MAX = 8
"""Live keys of one writer; past it, it revokes one."""


@dataclass
class Known:
    """What must be so of one key, by what was acknowledged."""

    id: str
    name: str
    state: str = "active"
    secrets: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Attempt:
    """A request as it was sent, to be sent again exactly so."""

    action: str
    path: str
    body: dict[str, Any]
    key: Known | None
    headers: dict[str, str]

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send it."""
        method = "PATCH" if self.action == "update" else "POST"
        return await client.request(method, API + self.path, json=self.body, headers=self.headers)


class Writer:
    """Changes its own keys until the server is gone."""

    def __init__(self, number: int) -> None:
        self.name = f"writer-{number}"
        self.keys: list[Known] = []
        self.pending: Attempt | None = None
        self.acknowledged = 0
        self._attempts = 0
        self._chance = random.Random(number)

    async def work(self, client: httpx.AsyncClient) -> None:
        """Send one request after another; return when one finds no server."""
        while True:
            self.pending = self._choose()
            try:
                answer = await self.pending.send(client)
            except httpx.TransportError:
                return
            self.learn(self.pending, answer)
            self.pending = None

    def learn(self, attempt: Attempt, answer: httpx.Response) -> None:
        """Take in what an answer acknowledges."""
        assert answer.status_code in {200, 201}, f"{attempt.action}: {answer.text}"
        found, key = answer.json(), attempt.key
        self.acknowledged += 1
        if key is None:
            self.keys.append(Known(found["id"], attempt.body["name"], secrets=[found["key"]]))
            return
        assert found["id"] == key.id
        if attempt.action == "rotate":
            if attempt.body["overlap_seconds"] == 0:
                key.dead += key.secrets
                key.secrets.clear()
            key.secrets.append(found["key"])
        elif attempt.action == "update":
            key.name = attempt.body["name"]
        else:
            key.state = {"disable": "disabled", "enable": "active", "revoke": "revoked"}[attempt.action]

    def _choose(self) -> Attempt:
        self._attempts += 1
        name = f"{self.name}-{self._attempts}"
        again = {"Idempotency-Key": name}
        live = [key for key in self.keys if key.state != "revoked"]
        if not live or (len(live) < KEYS_MAX and self._chance.random() < 0.4):
            body = {"keyspace": "orders", "owner": self.name, "purpose": "faults", "name": name}
            return Attempt("issue", "/keys", body, None, again)
        key = self._chance.choice(live)
        actions = ["update", "revoke", "enable" if key.state == "disabled" else "disable"]
        if key.state == "active":
            actions += ["rotate", "rotate"]
        action = self._chance.choice(actions)
        if action == "rotate":
            overlap = {"overlap_seconds": self._chance.choice([0, 3600])}
            return Attempt(action, f"/keys/{key.id}/rotate", overlap, key, again)
        if action == "update":
            return Attempt(action, f"/keys/{key.id}", {"name": name}, key, {})
        return Attempt(action, f"/keys/{key.id}/{action}", {}, key, {})

    async def settle(self, client: httpx.AsyncClient) -> None:
        """Send the request of unknown outcome again, and see that it was, or now is, done exactly once."""
        attempt, self.pending = self.pending, None
        if attempt is None:
            return
        if attempt.key is not None:
            shown = (await client.get(f"{API}/keys/{attempt.key.id}")).json()
            before = (attempt.key.state, attempt.key.name, len(attempt.key.secrets + attempt.key.dead))
            found = (shown["state"], shown["name"], len(shown["versions"]))
        answer = await attempt.send(client)
        self.learn(attempt, answer)
        if attempt.key is None:
            params = {"name": attempt.body["name"], "owner": self.name}
            named = (await client.get(f"{API}/keys", params=params)).json()["items"]
            assert [one["id"] for one in named if one["name"] == attempt.body["name"]] == [answer.json()["id"]]
            assert answer.json()["key"] is not None
        else:
            after = (attempt.key.state, attempt.key.name, len(attempt.key.secrets + attempt.key.dead))
            assert found in {before, after}, "a request was done by half"

    async def check(self, client: httpx.AsyncClient) -> None:
        """See that everything acknowledged is so, and that verify says so."""
        for key in self.keys:
            shown = (await client.get(f"{API}/keys/{key.id}")).json()
            secrets = len(key.secrets) + len(key.dead)
            assert (shown["state"], shown["name"], len(shown["versions"])) == (key.state, key.name, secrets)
            expected = {"active": "VALID", "disabled": "DISABLED", "revoked": "REVOKED"}[key.state]
            for secret in key.secrets:
                assert await _verdict(client, secret) == expected
            for secret in key.dead:
                assert await _verdict(client, secret) != "VALID", "a secret that was cut off is admitted again"


async def test_a_killed_server_has_lost_nothing_it_acknowledged(
    start_server: Start, server_database_url: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A revocation that was answered is never undone, and no retry makes a second key."""
    server = start_server(server_database_url)
    postgres: PostgresServer | None = request.getfixturevalue("postgres_server") if server_database_url else None
    ledger = Ledger(tmp_path / "data-1", server_database_url, postgres)
    with client_of(server) as client:
        # A small bound, for a killed node counts as live until it is past: nobody can tell it from a paused one.
        new_keyspace(client, stale_after_seconds=1)
        public_key, kept = verifier_key_of(client), [checkpoint_of(client)]
    moments = random.Random(17)
    writers = [Writer(number) for number in range(WRITERS)]
    for _ in range(ROUNDS):
        async with async_client_of(server) as client:
            working = [asyncio.create_task(writer.work(client)) for writer in writers]
            before = sum(writer.acknowledged for writer in writers)
            await until_async(lambda: sum(writer.acknowledged for writer in writers) > before + WRITERS)  # noqa: B023
            await asyncio.sleep(moments.uniform(0.0, 0.8))
            kept.append((await client.get(f"{API}/audit/checkpoint")).json()["note"])
            await asyncio.sleep(moments.uniform(0.0, 0.3))
            server.kill9()
            await asyncio.gather(*working)
        server.restart()
        async with async_client_of(server) as client:
            await _all(writer.settle(client) for writer in writers)
            await _all(writer.check(client) for writer in writers)
        with client_of(server) as client:
            for note in {kept[0], kept[-1]}:
                report = verified_log(client, public_key, note)
                assert report.ok, report.findings
        assert ledger.change_log_gaps() == []
        _check_that_leaves_and_rows_agree(ledger)
    assert server.stop() == 0


def _check_that_leaves_and_rows_agree(ledger: Ledger) -> None:
    """See that there is one leaf for each key and for each further version: no change without it, none without one."""
    keys = "SELECT id FROM issued_key WHERE owner LIKE 'writer-%'"
    issued = ledger.count(f"({keys}) AS keys")
    versions = ledger.count(f"key_version WHERE key IN ({keys})")
    assert ledger.count("audit_leaf WHERE action = 'key.issue'") == issued
    assert ledger.count("audit_leaf WHERE action = 'key.rotate'") == versions - issued
    revoked = ledger.count("issued_key WHERE owner LIKE 'writer-%' AND state = 'revoked'")
    assert ledger.count("audit_leaf WHERE action = 'key.revoke'") == revoked


async def _verdict(client: httpx.AsyncClient, key: str) -> str:
    """Return what a node says once it can tell: a busy machine may keep it from its news for a second."""
    while True:
        code = str((await client.post(f"{API}/verify", json={"key": key})).json()["code"])
        if code != "UNAVAILABLE":
            return code


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)
