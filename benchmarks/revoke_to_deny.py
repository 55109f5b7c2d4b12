"""Revoke to deny: how long after a revocation any node still admits the key.

    python -m benchmarks.revoke_to_deny [--short] [--json FILE]

Three servers A, B and C on one PostgreSQL, and an SDK `Verifier` in this process that follows B.  For each key: every
one of them is asked about it, a millisecond after its last answer; then A is told to revoke it.

    servers   from the commit, taken as the moment of A's answer less the `lag_ms` it reports, to the first denial of
              the last of the three servers
    verifier  the same to the first denial of the verifier
    request   from the sending of the revoke request to the last first denial of all four: needs no such reckoning
    answer    from the sending of the revoke request to its answer, which says that every node has applied it
    lag       `lag_ms` as A reports it: from the commit until every live node has confirmed

Each key is checked: nothing that was asked after A had answered `effective: true` was admitted, by any of them.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.report import arguments, finish
from benchmarks.running import KEYSPACE, prepare
from keyturn.client import Verifier
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer

REVOCATIONS = 1000
TARGET_MS = 100.0
PAUSE_SECONDS = 0.001
VERIFIER = "verifier"
ROWS = ("servers", "verifier", "request", "answer", "lag")


class Connection:
    """One keep-alive connection; requests go one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Not for callers: use `open`."""
        self._reader = reader
        self._writer = writer
        self._token = token

    @classmethod
    async def open(cls, port: int, token: str) -> Connection:
        """Connect to a server on this machine."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, token)

    async def post(self, path: str, body: object) -> dict[str, Any]:
        """Post and return the decoded answer, which must be a success."""
        raw = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
        )
        self._writer.write(head.encode() + raw)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        found: dict[str, Any] = json.loads(await self._reader.readexactly(length))
        assert answer[9:12] == b"200", f"{path} answered {answer[:200]!r} {found}"
        return found


Ask = Callable[[str], Awaitable[bool]]


async def _measure_one(a: Connection, nodes: dict[str, Ask], issued: dict[str, Any]) -> dict[str, Any]:
    """Revoke a key on A while every node is asked about it."""
    key = issued["key"]
    admitted = dict.fromkeys(nodes, 0.0)
    denied = dict.fromkeys(nodes, 0.0)

    async def ask(name: str) -> None:
        while not denied[name]:
            asked = perf_counter()
            if await nodes[name](key):
                admitted[name] = asked
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                denied[name] = perf_counter()

    for name, admits in nodes.items():
        assert await admits(key), f"{name} does not admit the key to begin with"
    asking = [asyncio.create_task(ask(name)) for name in nodes]
    await asyncio.sleep(0.005)
    sent = perf_counter()
    effect = await a.post(f"/api/v1/keys/{issued['id']}/revoke", {"reason": "key_compromise"})
    answered = perf_counter()
    await asyncio.wait_for(asyncio.gather(*asking), 10)
    committed = answered - effect["lag_ms"] / 1000
    return {
        "servers_ms": (max(at for name, at in denied.items() if name != VERIFIER) - committed) * 1000,
        "verifier_ms": (denied[VERIFIER] - committed) * 1000,
        "request_ms": (max(denied.values()) - sent) * 1000,
        "answer_ms": (answered - sent) * 1000,
        "lag_ms": effect["lag_ms"],
        "effective": effect["effective"],
        "late_admission": bool(effect["effective"]) and max(admitted.values()) > answered,
    }


async def _measure_all(
    ports: list[int], token: str, verifier: Verifier, keys: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    writer, *asked = [await Connection.open(port, token) for port in [ports[0], *ports]]

    def of(connection: Connection) -> Ask:
        async def admits(key: str) -> bool:
            return bool((await connection.post("/api/v1/verify", {"key": key}))["valid"])

        return admits

    async def verifies(key: str) -> bool:
        return bool(await verifier.averify(key))

    nodes: dict[str, Ask] = {name: of(connection) for name, connection in zip("ABC", asked, strict=True)}
    nodes[VERIFIER] = verifies
    return [await _measure_one(writer, nodes, issued) for issued in keys]


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    count = 50 if short else REVOCATIONS
    with tempfile.TemporaryDirectory() as name, PostgresServer.start() as postgres, ExitStack() as running:
        url = postgres.create_database()
        first = Path(name) / "a"
        servers = [running.enter_context(RunningServer.start(first, url))]
        for other in ("b", "c"):
            shared = {"KEYTURN_KEK_PATH": str(first / "kek")}
            servers.append(running.enter_context(RunningServer.start(Path(name) / other, url, env=shared)))
        token = servers[0].admin_token
        keys = prepare(servers[0], count)
        verifier = running.enter_context(Verifier(servers[1].url, token, [KEYSPACE]))
        assert verifier.ready, "the verifier does not come up"
        found = asyncio.run(_measure_all([server.port for server in servers], token, verifier, keys))
    assert not any(one["late_admission"] for one in found), "a key was admitted after `effective: true`"
    result: dict[str, Any] = {"revocations": count, "not_effective": sum(not one["effective"] for one in found)}
    for name in ROWS:
        ordered = sorted(one[f"{name}_ms"] for one in found)
        result[name] = {
            "p50_ms": round(ordered[len(ordered) // 2], 2),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
            "max_ms": round(ordered[-1], 2),
        }
    return result


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"revoke to deny, three nodes on PostgreSQL, {result['revocations']} revocations: p50 / p99 / max ms")
    for name in ROWS:
        one = result[name]
        print(f"  {name:<9}{one['p50_ms']:>9.2f} / {one['p99_ms']:>9.2f} / {one['max_ms']:>9.2f}")
    print(f"  not effective within the wait: {result['not_effective']}; target: servers p99 < {TARGET_MS:.0f} ms")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("revoke_to_deny", measure(short=given.short), show, given)
