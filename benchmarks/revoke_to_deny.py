"""Revoke to deny: how long after a revocation on one node another node still admits the key.

    python -m benchmarks.revoke_to_deny [--short] [--json FILE]

Two servers on one PostgreSQL.  For each key: node B is asked about it without pause; then node A is told to revoke it.

    commit   from the commit, taken as the moment of A's answer less the `lag_ms` it reports, to B's first denial
    request  from the sending of the revoke request to B's first denial: an upper bound that needs no such reckoning
    answer   from the sending of the revoke request to its answer, which says that every node has applied it
    lag      `lag_ms` as A reports it: from the commit until every live node has confirmed

Each key is checked: nothing that was sent to B after A had answered `effective: true` was admitted.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.report import arguments, finish
from benchmarks.running import prepare
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer

REVOCATIONS = 1000
TARGET_MS = 100.0


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


async def _measure_one(a: Connection, b: Connection, issued: dict[str, Any]) -> dict[str, Any]:
    """Revoke a key on A while B is asked about it."""
    question = {"key": issued["key"]}
    assert (await b.post("/api/v1/verify", question))["valid"], "the other node does not admit the key to begin with"
    asked_last_admitted = denied_at = 0.0

    async def ask() -> None:
        nonlocal asked_last_admitted, denied_at
        while not denied_at:
            asked = perf_counter()
            if (await b.post("/api/v1/verify", question))["valid"]:
                asked_last_admitted = asked
            else:
                denied_at = perf_counter()

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.005)
    sent = perf_counter()
    effect = await a.post(f"/api/v1/keys/{issued['id']}/revoke", {"reason": "key_compromise"})
    answered = perf_counter()
    await asyncio.wait_for(asking, 10)
    return {
        "commit_ms": (denied_at - (answered - effect["lag_ms"] / 1000)) * 1000,
        "request_ms": (denied_at - sent) * 1000,
        "answer_ms": (answered - sent) * 1000,
        "lag_ms": effect["lag_ms"],
        "effective": effect["effective"],
        "late_admission": bool(effect["effective"]) and asked_last_admitted > answered,
    }


async def _measure_all(ports: tuple[int, int], token: str, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    a, b = [await Connection.open(port, token) for port in ports]
    return [await _measure_one(a, b, issued) for issued in keys]


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    count = 50 if short else REVOCATIONS
    with tempfile.TemporaryDirectory() as name, PostgresServer.start() as postgres:
        url = postgres.create_database()
        first, second = Path(name) / "a", Path(name) / "b"
        with (
            RunningServer.start(first, url) as a,
            RunningServer.start(second, url, env={"KEYTURN_KEK_PATH": str(first / "kek")}) as b,
        ):
            keys = prepare(a, count)
            found = asyncio.run(_measure_all((a.port, b.port), a.admin_token, keys))
    assert not any(one["late_admission"] for one in found), "a key was admitted after `effective: true`"
    result: dict[str, Any] = {"revocations": count, "not_effective": sum(not one["effective"] for one in found)}
    for name in ("commit", "request", "answer", "lag"):
        ordered = sorted(one[f"{name}_ms"] for one in found)
        result[name] = {
            "p50_ms": round(ordered[len(ordered) // 2], 2),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
            "max_ms": round(ordered[-1], 2),
        }
    return result


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"revoke to deny, two nodes on PostgreSQL, {result['revocations']} revocations: p50 / p99 / max ms")
    for name in ("commit", "request", "answer", "lag"):
        one = result[name]
        print(f"  {name:<8}{one['p50_ms']:>9.2f} / {one['p99_ms']:>9.2f} / {one['max_ms']:>9.2f}")
    print(f"  not effective within the wait: {result['not_effective']}; target: commit p99 < {TARGET_MS:.0f} ms")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("revoke_to_deny", measure(short=given.short), show, given)
