"""A disk that is full, a database that is locked, paused or killed: a clear refusal, nothing by half, and recovery.

A node whose own clock is wrong cannot be made here without changing the machine's; `tests/kernel/test_clock.py` and
`tests/verify/test_freshness.py` prove that it would make no difference.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.disks import file_size_limit, filled_disk, mounted_disk
from tests.faults.system import (
    API,
    Ledger,
    Start,
    checkpoint_of,
    client_of,
    known,
    new_key,
    new_keyspace,
    over,
    verdict,
    verified_log,
    verifier_key_of,
    warm,
)

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STALE_AFTER_SECONDS = 3


def issue(client: httpx.Client, attempt: str) -> httpx.Response:
    """Ask for a key under an Idempotency-Key, which is its name too."""
    body = {"keyspace": "orders", "owner": "alice", "purpose": "faults", "name": attempt}
    return client.post(f"{API}/keys", json=body, headers={"Idempotency-Key": attempt})


def refusal(answer: httpx.Response) -> str:
    """Return the code of a refusal, having seen that it is a problem that says what to do."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"]
    assert problem["hint"]
    return str(problem["code"])


def exactly_one(client: httpx.Client, attempt: str) -> bool:
    """Send an attempt again; True when it is acknowledged with its secret and there is one key of its name."""
    answer = issue(client, attempt)
    found = client.get(f"{API}/keys", params={"name": attempt, "owner": "alice"}).json()["items"]
    named = [one["id"] for one in found if one["name"] == attempt]
    return answer.status_code == 201 and named == [answer.json()["id"]] and bool(answer.json()["key"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes; needs the right to mount one."""
    with mounted_disk(tmp_path / "disk") as folder:
        yield folder


@dataclass
class Filling:
    """Writes to a server without room: some still find a place, such as where a checkpoint has made some."""

    client: httpx.Client
    acknowledged: int = 0

    def until_refused(self) -> tuple[str, str]:
        """Issue keys until one is refused; return its name and the code."""
        for _ in range(2000):
            attempt = f"attempt-{self.acknowledged}"
            answer = issue(self.client, attempt)
            if answer.status_code != 201:
                return attempt, refusal(answer)
            self.acknowledged += 1
        pytest.fail("a disk that is full took 2000 keys")

    def refused(self, verb: str, spares: Iterator[dict[str, Any]]) -> tuple[dict[str, Any], str]:
        """Do `verb` to one spare key after the other until one is refused; return it and the code."""
        for spare in spares:
            self.until_refused()
            answer = self.client.post(f"{API}/keys/{spare['id']}/{verb}", json={})
            if answer.status_code != 200:
                return spare, refusal(answer)
        pytest.fail(f"a disk that is full let every key {verb}")


def _full_disk(server: RunningServer, fill: Callable[[RunningServer], Any], codes: set[str]) -> None:
    ledger = Ledger(server.data_dir, None, None)
    with client_of(server) as client:
        new_keyspace(client)
        key, *others = [new_key(client) for _ in range(12)]
        spares = iter(others)
        public_key, kept = verifier_key_of(client), checkpoint_of(client)
        warm(client, key["key"])
        filling = Filling(client)
        with fill(server):
            refused, code = filling.until_refused()
            kept_key, revoke_code = filling.refused("revoke", spares)
            unrotated, rotate_code = filling.refused("rotate", spares)
            assert {code, revoke_code, rotate_code} <= codes
            assert verdict(client, key["key"]) == "VALID", "what is known is verified without a disk"
            assert verdict(client, kept_key["key"]) == "VALID", "a revocation that was refused is none"
            assert ledger.count("issued_key WHERE owner = 'alice'") == filling.acknowledged + 12
            assert ledger.count("audit_leaf WHERE action = 'key.issue'") == filling.acknowledged + 12
            assert server.is_ready()
        assert until(lambda: exactly_one(client, refused))
        after = filling.acknowledged + (0 if refused != f"attempt-{filling.acknowledged}" else 1)
        assert len(client.get(f"{API}/keys/{unrotated['id']}").json()["versions"]) == 1
        over(client, f"/keys/{kept_key['id']}/revoke")
        assert verdict(client, kept_key["key"]) == "REVOKED"
        assert ledger.change_log_gaps() == []
        assert ledger.count("audit_leaf WHERE action = 'key.issue'") == after + 12
        checkpoint_of(client)
        assert verified_log(client, public_key, kept).ok
    assert server.stop() == 0


def test_a_file_that_cannot_grow_refuses_writes_and_no_verification(start_server: Start) -> None:
    _full_disk(start_server(), file_size_limit, {"storage_io", "storage_full"})


def test_a_full_disk_refuses_writes_and_no_verification(start_server: Start, small_disk: Path) -> None:
    _full_disk(start_server(data_dir=small_disk / "data"), filled_disk, {"storage_full"})


def test_a_locked_database_refuses_writes_and_no_verification(start_server: Start) -> None:
    server = start_server()
    with client_of(server) as client:
        new_keyspace(client)
        key = new_key(client)
        warm(client, key["key"])
        ledger = Ledger(server.data_dir, None, None)
        with contextlib.closing(sqlite3.connect(server.data_dir / "keyturn.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert refusal(issue(client, "while-locked")) == "storage_locked"
            assert verdict(client, key["key"]) == "VALID"
            assert client.get(f"{API}/keys/{key['id']}").status_code == 200
            other.execute("ROLLBACK")
        assert until(lambda: exactly_one(client, "while-locked"))
        over(client, f"/keys/{key['id']}/revoke")
        assert known(lambda: verdict(client, key["key"])) == "REVOKED"
        assert ledger.change_log_gaps() == []
        checkpoint_of(client)
        assert verified_log(client, verifier_key_of(client)).ok


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["paused", "killed"])
def test_postgresql_may_go_away_and_come_back(
    start_server: Start, postgres_server: PostgresServer, postgres_url: str, how: str
) -> None:
    """Verifications go on within the staleness bound, and not a moment longer."""
    server = start_server(postgres_url)
    with client_of(server, seconds=40) as client, ThreadPoolExecutor(1) as beside:
        new_keyspace(client, stale_after_seconds=STALE_AFTER_SECONDS)
        new_keyspace(client, "patient")
        key, patient = new_key(client), new_key(client, "patient")
        public_key, kept = verifier_key_of(client), checkpoint_of(client)
        warm(client, patient["key"])
        away, back = {
            "paused": (postgres_server.pause, postgres_server.resume),
            "killed": (postgres_server.kill, postgres_server.restart),
        }[how]
        away()
        try:
            assert verdict(client, patient["key"]) == "VALID"
            writing = beside.submit(issue, client, "while-away")
            time.sleep(STALE_AFTER_SECONDS + 0.01)
            assert verdict(client, key["key"]) == "UNAVAILABLE"
            assert refusal(writing.result(120)).startswith("storage_")
        finally:
            back()
        assert known(lambda: verdict(client, key["key"])) == "VALID"
        assert until(lambda: exactly_one(client, "while-away"))
        assert until(server.is_ready)
        over(client, f"/keys/{key['id']}/revoke")
        assert known(lambda: verdict(client, key["key"])) == "REVOKED"
        assert Ledger(server.data_dir, postgres_url, postgres_server).change_log_gaps() == []
        checkpoint_of(client)
        assert verified_log(client, public_key, kept).ok
