"""Verify over HTTP while others issue and revoke: p99 with eight writers, as a ratio to p99 without.

    python -m benchmarks.verify_under_writes [--short] [--json FILE]

    alone      8 connections that verify, and nothing else
    writers    the same while 8 connections issue keys and revoke them again, one after the other, without pause
    load       the same while a process that knows nothing of the server takes as much of the machine

One worker, keys with two limits in memory, SQLite and PostgreSQL.  Every write is a durable commit with its audit leaf
and change row.  Rounds take turns; a ratio is that of one round, the median of the rounds is reported.  `load` tells
how much of a ratio is the processor's, which writers and their database share with the server: it spins in as many
processes as the machine has processors.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Plan, Result, run
from benchmarks.report import arguments, finish
from benchmarks.running import KEYSPACE, LIMITS, Client, prepare
from benchmarks.verify_http import requests
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 8
WRITERS = 8
KEYS = 200


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    rounds, seconds = (2, 2.0) if short else (5, 5.0)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        with RunningServer.start(Path(name) / "sqlite") as server:
            rows.append({"database": "sqlite", **_row(server, rounds, seconds)})
        with (
            PostgresServer.start() as postgres,
            RunningServer.start(Path(name) / "postgresql", postgres.create_database()) as server,
        ):
            rows.append({"database": "postgresql", **_row(server, rounds, seconds)})
    return {"rounds": rounds, "seconds": seconds, "rows": rows}


def _row(server: RunningServer, rounds: int, seconds: float) -> dict[str, Any]:
    keys = [one["key"] for one in prepare(server, KEYS, limits=LIMITS)]
    plan = Plan(server.port, requests(keys, server.admin_token), CONNECTIONS, seconds, 0.5)
    found: dict[str, list[Result]] = {"alone": [], "writers": [], "load": []}
    writes: list[float] = []
    for _ in range(rounds):
        for kind, results in found.items():
            with ExitStack() as during:
                if kind == "writers":
                    writes.append(0.0)
                    during.enter_context(_writing(server, writes, seconds + 0.5))
                elif kind == "load":
                    during.enter_context(_spinning())
                result = run(plan)
            assert set(result.statuses) == {"200"}, f"verify answered {result.statuses}"
            results.append(result)
    row: dict[str, Any] = {"writes_per_second": round(statistics.median(writes))}
    for kind, results in found.items():
        row[kind] = {
            "per_second": round(statistics.median(one.per_second for one in results)),
            "p50_ms": round(statistics.median(one.p50_ms for one in results), 3),
            "p99_ms": round(statistics.median(one.p99_ms for one in results), 3),
            "max_ms": round(max(one.max_ms for one in results), 1),
        }
    for kind in ("writers", "load"):
        pairs = zip(found[kind], found["alone"], strict=True)
        row[f"p99_{kind}_to_alone"] = round(statistics.median(a.p99_ms / b.p99_ms for a, b in pairs), 2)
    return row


@contextmanager
def _writing(server: RunningServer, writes: list[float], seconds: float) -> Iterator[None]:
    """Issue and revoke in a process of its own until the block ends; the last of `writes` becomes writes a second."""
    command = [sys.executable, "-m", "benchmarks.verify_under_writes", "--write", str(server.port), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(server.admin_token.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n", "the writers did not begin"
        yield
        process.stdin.close()
        writes[-1] = float(process.stdout.readline())
    assert process.returncode == 0, "the writers failed"


@contextmanager
def _spinning() -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write(port: int, seconds: float) -> None:
    """Be the writers: the token comes first on standard input, and its end ends them."""
    token = sys.stdin.readline().strip()
    ending = threading.Event()
    counts = [0] * WRITERS

    def one(number: int) -> None:
        client = Client(port, token)
        body = {"keyspace": KEYSPACE, "owner": f"writer-{number}", "purpose": "benchmark", "scopes": ["orders:read"]}
        while not ending.is_set():
            made = client.call("POST", "/api/v1/keys", body)
            client.call("POST", f"/api/v1/keys/{made['id']}/revoke", {"reason": "key_compromise"})
            counts[number] += 2
        client.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    print("writing", flush=True)
    sys.stdin.read()
    ending.set()
    for thread in threads:
        thread.join()
    print(sum(counts) / seconds, flush=True)


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"verify over HTTP, {CONNECTIONS} connections: requests/s  p50 / p99 / max ms")
    for row in result["rows"]:
        print(f"  {row['database']}, {row['writes_per_second']} writes/s")
        for kind in ("alone", "writers", "load"):
            one = row[kind]
            print(
                f"    {kind:<9}{one['per_second']:>8}/s"
                f"   {one['p50_ms']:>8.3f} / {one['p99_ms']:>8.3f} / {one['max_ms']:>8.1f}"
            )
        print(f"    p99 with writers {row['p99_writers_to_alone']:.2f} of that without;", end="")
        print(f" with other load {row['p99_load_to_alone']:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(int(sys.argv[2]), float(sys.argv[3]))
    else:
        given = arguments(__doc__)
        finish("verify_under_writes", measure(short=given.short), show, given)
