"""What the fault tests have in common: talking to real servers, and looking into their database and audit log."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from keyturn.audit.verification import verify_server

if TYPE_CHECKING:
    from keyturn.audit.findings import Report
    from keyturn.testing.postgres import PostgresServer
    from keyturn.testing.server import RunningServer

API = "/api/v1"
Start = Callable[..., "RunningServer"]


def client_of(server: RunningServer, *, token: str | None = None, seconds: float = 20.0) -> httpx.Client:
    """Return a client with a management token; the admin's unless another is given."""
    return httpx.Client(base_url=server.url, headers=_bearer(token or server.admin_token), timeout=seconds)


def async_client_of(server: RunningServer, *, token: str | None = None, seconds: float = 20.0) -> httpx.AsyncClient:
    """Return a client for many requests at once."""
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
    return httpx.AsyncClient(
        base_url=server.url, headers=_bearer(token or server.admin_token), timeout=seconds, limits=limits
    )


def new_keyspace(client: httpx.Client, name: str = "orders", *, stale_after_seconds: int = 60) -> None:
    """Create a keyspace."""
    body = {"name": name, "prefix": "acme", "environment": "dev", "stale_after_seconds": stale_after_seconds}
    answer = client.post(f"{API}/keyspaces", json=body)
    assert answer.status_code == 201, answer.text


def new_key(client: httpx.Client, keyspace: str = "orders") -> dict[str, Any]:
    """Issue a key."""
    answer = client.post(f"{API}/keys", json={"keyspace": keyspace, "owner": "alice", "purpose": "faults"})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def verdict(client: httpx.Client, key: str) -> str:
    """Return the code of a verdict, having seen that it says the same as `valid` and the status."""
    answer = client.post(f"{API}/verify", json={"key": key})
    found = answer.json()
    assert answer.status_code == (503 if found["code"] == "UNAVAILABLE" else 200), answer.text
    assert found["valid"] is (found["code"] == "VALID")
    return str(found["code"])


def until(condition: Callable[[], bool], seconds_max: float = 15.0) -> bool:
    """Wait until something holds; False when it never did."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def checkpoint_of(client: httpx.Client) -> str:
    """Return the newest checkpoint once everything written so far is under it."""

    def built() -> bool:
        found = client.get(f"{API}/audit/checkpoint").json()
        return found["note"] is not None and found["unbuilt"] == 0

    assert until(built)
    return str(client.get(f"{API}/audit/checkpoint").json()["note"])


def verifier_key_of(client: httpx.Client) -> str:
    """Return the public key of the log, to be kept apart from the server."""
    return str(client.get(f"{API}/audit/public-key").json()["verifier_key"])


def verified_log(client: httpx.Client, verifier_key: str, since: str | None = None) -> Report:
    """Verify the audit log of a server."""

    def fetch(path: str, parameters: Mapping[str, Any]) -> Iterator[str]:
        with client.stream("GET", API + path, params=dict(parameters)) as answer:
            answer.raise_for_status()
            yield from answer.iter_lines()

    return verify_server(fetch, verifier_key, since)


class Ledger:
    """Reads the database behind a server's back."""

    def __init__(self, data_dir: Path, url: str | None, postgres: PostgresServer | None) -> None:
        self._file = data_dir / "keyturn.db"
        self._database = "" if url is None else url.rpartition("/")[2]
        self._postgres = postgres

    def rows(self, statement: str) -> list[tuple[str, ...]]:
        """Run a query and return its rows as text."""
        if self._postgres is not None:
            text = self._postgres.query(statement, self._database)
            return [tuple(line.split("|")) for line in text.splitlines()]
        with contextlib.closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection:
            return [tuple(str(value) for value in row) for row in connection.execute(statement)]

    def change_log_gaps(self) -> list[int]:
        """Return the numbers that are missing in the change log, from its first row up to its head."""
        head = int(self.rows("SELECT seq FROM change_head")[0][0])
        found = {int(row[0]) for row in self.rows("SELECT seq FROM change")}
        return sorted(set(range(min(found), head + 1)) ^ found)

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])


class Proxy:
    """A TCP proxy between one server and its database that can be frozen and cut; runs on the test's event loop.

    Frozen, it takes and answers nothing, as a network that drops every packet; cut, it resets what there is and
    refuses what comes.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Let nothing through; connections stay open and unanswered."""
        self._flows.clear()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        """Let everything through again, what was held back included."""
        self._is_cut = False
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        await self._flows.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(back)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()
            self._writers.discard(sink)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
