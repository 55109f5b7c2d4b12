"""A database that takes nothing, or does not answer: no value leaves that cannot be put on record, and nobody hangs."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.disks import file_size_limit, filled_disk, mounted_disk
from tests.faults.held import leaves
from tests.faults.system import API, Ledger, Start, checkpoint_of, client_of, verified_log, verifier_key_of

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

PATH = "production/shop/main"
URL = f"{API}/secrets/{PATH}"
VALUE = "held-and-not-given"
READERS = 6
SECONDS_MAX = 100.0
"""More than anybody may wait: a read is refused after 5 s, a write after a little more, and the machine may be slow."""


def put(client: httpx.Client, value: str = VALUE) -> httpx.Response:
    """Write a version, which is the same one however often it is sent."""
    return client.put(URL, json={"fields": {"token": value}}, headers={"Idempotency-Key": value})


def is_given(answer: httpx.Response, value: str = VALUE) -> bool:
    """Tell whether a read gave the value; a refusal must be a problem that says what to do, and hold no value."""
    if answer.status_code == 200:
        assert answer.json()["fields"] == {"token": value}
        return True
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"].startswith(("storage_", "audit_")), problem
    assert problem["hint"]
    assert VALUE not in answer.text
    return False


def read_as(client: httpx.Client, name: str) -> httpx.Response:
    """Read under a request id of its own."""
    return client.get(URL, headers={"X-Request-Id": name})


def on_record(client: httpx.Client) -> set[str | None]:
    """Return the request ids of all reads that were allowed."""
    return {leaf["request_id"] for leaf in leaves(client, "secret.reveal") if leaf["outcome"] == "allowed"}


def read_until_refused(client: httpx.Client, name: str) -> set[str]:
    """Read until a read is refused; return what was given before, which found some room."""
    given: set[str] = set()
    for number in range(4000):
        request = f"{name}-{number}"
        if not is_given(read_as(client, request)):
            return given
        given.add(request)
    pytest.fail("a disk that is full took 4000 reads")


def _without_room(server: RunningServer, fill: Callable[[RunningServer], AbstractContextManager[None]]) -> None:
    ledger = Ledger(server.data_dir, None, None)
    with client_of(server) as client:
        assert put(client).status_code == 200
        public_key, kept = verifier_key_of(client), checkpoint_of(client)
        with fill(server):
            given = read_until_refused(client, "first")
            versions = ledger.count("secret_version")
            refused = put(client, "written-without-room")
            if refused.status_code != 200:  # a checkpoint makes room now and then
                assert not is_given(refused)
                assert ledger.count("secret_version") == versions
                given |= read_until_refused(client, "second")
            assert server.is_ready()
        value = VALUE if refused.status_code != 200 else "written-without-room"
        assert until(lambda: is_given(read_as(client, "after"), value))
        assert put(client, "written-after").status_code == 200
        assert is_given(read_as(client, "last"), "written-after")
        assert given | {"after", "last"} <= on_record(client)
        assert ledger.change_log_gaps() == []
        checkpoint_of(client)
        assert verified_log(client, public_key, kept).ok
    assert server.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes; needs the right to mount one."""
    with mounted_disk(tmp_path / "disk") as folder:
        yield folder


def test_a_file_that_cannot_grow_refuses_reads_of_secrets(start_server: Start) -> None:
    _without_room(start_server(), file_size_limit)


def test_a_full_disk_refuses_reads_of_secrets(start_server: Start, small_disk: Path) -> None:
    _without_room(start_server(data_dir=small_disk / "data"), filled_disk)


def all_refused(server: RunningServer, name: str) -> None:
    """Read and write at once with a server whose database takes nothing: each is refused, in bounded time."""

    def read(number: int) -> bool:
        with client_of(server, seconds=SECONDS_MAX) as client:
            return is_given(read_as(client, f"{name}-{number}"))

    def write() -> bool:
        with client_of(server, seconds=SECONDS_MAX) as client:
            return is_given(put(client, "written-meanwhile"))

    began = time.monotonic()
    with ThreadPoolExecutor(READERS + 1) as threads:
        writing = threads.submit(write)
        assert list(threads.map(read, range(READERS))) == [False] * READERS
        assert writing.result() is False
    assert time.monotonic() - began < SECONDS_MAX


def is_written_once(client: httpx.Client) -> bool:
    """Send again what was refused; tell whether it is there, which it must be once."""
    answer = put(client, "written-meanwhile")
    if answer.status_code != 200:
        return False
    assert answer.json()["version"] == 2
    assert len(client.get(f"{API}/secret-metadata/{PATH}").json()["versions"]) == 2
    return True


def test_a_database_locked_by_another_process_gives_no_value(start_server: Start) -> None:
    """What needs no record is answered meanwhile."""
    server = start_server()
    with client_of(server, seconds=SECONDS_MAX) as client:
        assert put(client).status_code == 200
        assert is_given(read_as(client, "before"))
        with contextlib.closing(sqlite3.connect(server.data_dir / "keyturn.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            all_refused(server, "locked")
            assert client.get(f"{API}/secret-metadata/{PATH}").status_code == 200
            assert client.get(f"{API}/secret-names").json() == {"names": ["production/"]}
            other.execute("ROLLBACK")
        assert until(lambda: is_written_once(client))
        assert is_given(read_as(client, "after"), "written-meanwhile")
        assert {"before", "after"} <= on_record(client)
        checkpoint_of(client)
        assert verified_log(client, verifier_key_of(client)).ok


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_postgresql_that_is_away_gives_no_value_and_hangs_nobody(
    start_server: Start, postgres_server: PostgresServer, migrated_postgres_url: str, how: str
) -> None:
    server = start_server(migrated_postgres_url)
    away, back = {
        "paused": (postgres_server.pause, postgres_server.resume),
        "killed": (postgres_server.kill, postgres_server.restart),
    }[how]
    with client_of(server, seconds=SECONDS_MAX) as client:
        assert put(client).status_code == 200
        public_key, kept = verifier_key_of(client), checkpoint_of(client)
        assert is_given(read_as(client, "before"))
        away()
        try:
            all_refused(server, how)
        finally:
            back()
        assert until(lambda: is_written_once(client))
        assert is_given(read_as(client, "after"), "written-meanwhile")
        assert {"before", "after"} <= on_record(client)
        assert Ledger(server.data_dir, migrated_postgres_url, postgres_server).change_log_gaps() == []
        checkpoint_of(client)
        assert verified_log(client, public_key, kept).ok
