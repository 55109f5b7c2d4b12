"""What the fault tests have in common: talking to real servers, and looking into their database and audit log."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from keyturn.audit.verification import verify_server
from keyturn.testing.waiting import eventually, until
from tests.listening import connected, listening

if TYPE_CHECKING:
    from keyturn.audit.findings import Report
    from keyturn.testing.postgres import PostgresServer
    from keyturn.testing.server import RunningServer

API = "/api/v1"
Start = Callable[..., "RunningServer"]


def client_of(server: RunningServer, *, token: str | None = None, seconds: float = 120.0) -> httpx.Client:
    """Return a client with a management token; the admin's unless another is given."""
    return httpx.Client(base_url=server.url, headers=_bearer(token or server.admin_token), timeout=seconds)


def async_client_of(server: RunningServer, *, token: str | None = None, seconds: float = 120.0) -> httpx.AsyncClient:
    """Return a client for many requests at once."""
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
    return httpx.AsyncClient(
        base_url=server.url, headers=_bearer(token or server.admin_token), timeout=seconds, limits=limits
    )


def start_beside(start: Start, first: RunningServer, url: str) -> RunningServer:
    """Start another server on the database of the first, with its root key."""
    return start(url, env={"KEYTURN_KEK_PATH": str(first.data_dir / "kek")})


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


def known(ask: Callable[[], str]) -> str:
    """Ask for a verdict until there is one: a node that a busy machine kept from its news for a moment has none."""
    return str(eventually(lambda: (code := ask()) != "UNAVAILABLE" and code))


def spread(client: httpx.Client) -> None:
    """Return once every node, none of which may be gone, has applied what was written so far."""
    assert until(lambda: all(one["behind"] == 0 for one in client.get(f"{API}/nodes").json()["items"]))


def warm(client: httpx.Client, key: str, *, admin: httpx.Client | None = None) -> None:
    """Verify a key until a node needs no database for it: a proof of the caller that met news is not kept."""
    spread(admin or client)
    for _ in range(2):
        assert known(lambda: verdict(client, key)) == "VALID"


def over(client: httpx.Client, path: str) -> dict[str, Any]:
    """Restrict something, and return once every node has heard of it; a busy machine may need another try."""
    answer: dict[str, Any] = {}

    def is_effective() -> bool:
        answer.update(client.post(API + path, json={}).json())
        return bool(answer.get("effective"))

    assert until(is_effective), answer
    return answer


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
        # In one statement, which sees one moment: a server may go on writing.
        rows = self.rows("SELECT change.seq, change_head.seq FROM change, change_head")
        found, head = {int(seq) for seq, _ in rows}, int(rows[0][1])
        return sorted(set(range(min(found), head + 1)) ^ found)

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])


class Proxy:
    """A TCP proxy between one server and PostgreSQL that can be frozen and cut; it runs in a thread of its own.

    Frozen, it takes and answers nothing, as a network that drops every packet; cut, it resets what there is and
    refuses what comes.
    """

    def __init__(self, url: str) -> None:
        self._before, _, rest = url.rpartition(":")
        target, _, self._after = rest.partition("/")
        self._target = int(target)
        self._port = 0
        self._is_cut = False
        self._is_frozen = False
        self._spares_confirms = False
        self._flows: asyncio.Condition
        self._ended: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._writers: set[asyncio.StreamWriter] = set()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(120)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(120)

    @property
    def url(self) -> str:
        """The address of the same database through this proxy."""
        return f"{self._before}:{self._port}/{self._after}"

    def freeze(self, *, spare_confirms: bool = False) -> None:
        """Let nothing through; connections stay open and unanswered.

        With `spare_confirms` the connection on which the node proves its freshness works on.
        """
        self._spares_confirms = spare_confirms
        self._is_frozen = True

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._abort_all)

    def heal(self) -> None:
        """Let everything through again, what was held back included."""
        self._is_cut = self._is_frozen = self._spares_confirms = False
        asyncio.run_coroutine_threadsafe(self._notify(), self._loop).result(120)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._flows, self._ended = asyncio.Condition(), asyncio.Event()
        async with listening(self._serve) as self._port:
            self._begun.set()
            await self._ended.wait()

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _notify(self) -> None:
        async with self._flows:
            self._flows.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        flow = _Flow()
        try:
            async with connected(self._target) as (there, back):
                self._writers.add(back)
                await asyncio.gather(self._pump(flow, reader, back), self._pump(flow, there, writer))
        except OSError:
            writer.transport.abort()

    async def _pump(self, flow: _Flow, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                flow.confirms = flow.confirms or b"UPDATE node SET applied" in data
                await self._wait(flow)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()
            self._writers.discard(sink)

    async def _wait(self, flow: _Flow) -> None:
        while self._is_frozen and not (self._spares_confirms and flow.confirms):
            async with self._flows:
                await self._flows.wait()


class _Flow:
    """One connection through the proxy; `confirms` when it is the one of the confirming thread."""

    confirms = False


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
