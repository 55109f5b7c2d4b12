"""Reads of held secrets beside another server that speaks the Vault dialect, in turns.

    python -m benchmarks.secret_reads_peer --port 8200 --token-file FILE [--mount secret] [--short] [--json FILE]

The other one listens on 127.0.0.1 without TLS, has a KV v2 engine at the mount, and is set up as it is to be compared:
what it has written before it answers is its own affair, such as a file audit device that is or is not flushed to the
disk.  Ours is one worker on SQLite, with every access durable before its value leaves.

    vault      GET /v1/{mount}/data/{path}: 200 secrets of two fields, in turns, with 1, 8 and 64 connections
    native     the same secrets by our own route, at ours only
    paced      64 clients that ask ten times a second each

`cpu` is the processor's time that a server took for a request, where it runs as this user.  A ratio is that of one
round, and the median is reported; above 1 ours is the better.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Plan, Sent
from benchmarks.report import finish
from benchmarks.running import Client, Run, charged
from benchmarks.secret_reads import CONNECTIONS, FOLDER, PACED_SECONDS, SECRETS, prepare
from keyturn.testing.server import RunningServer


@dataclass(frozen=True)
class Server:
    """One of the two: where it listens, which processes it is, and what is asked of it."""

    name: str
    port: int
    pids: tuple[int, ...]
    requests: list[Sent]


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    rounds, seconds = (2, 3.0) if given.short else (5, 4.0)
    found: dict[tuple[str, str, int], list[Run]] = {}
    with tempfile.TemporaryDirectory() as name, RunningServer.start(Path(name) / "data") as ours:
        servers = [*_ours(ours), _theirs(given)]
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for server in servers:
                    plan = Plan(server.port, server.requests, connections, seconds, 0.5)
                    found.setdefault((server.name, "saturated", connections), []).append(
                        charged(server.name, server.pids, plan)
                    )
            for server in servers:
                plan = Plan(server.port, server.requests, max(CONNECTIONS), seconds, 0.5, pause_seconds=PACED_SECONDS)
                found.setdefault((server.name, "paced", max(CONNECTIONS)), []).append(
                    charged(server.name, server.pids, plan)
                )
    return {"rounds": rounds, "seconds": seconds, "rows": [_row(key, found) for key in found]}


def _ours(server: RunningServer) -> list[Server]:
    token = prepare(server)
    names = [f"s{number}" for number in range(SECRETS)]
    bearer, theirs = {"authorization": f"Bearer {token}"}, {"x-vault-token": token}
    native = [Sent(f"/api/v1/secrets/{FOLDER}/{name}", method="GET", headers=bearer) for name in names]
    vault = [Sent(f"/v1/production/data/bench/{name}", method="GET", headers=theirs) for name in names]
    pids = tuple(server.pids)
    return [Server("native", server.port, pids, native), Server("vault", server.port, pids, vault)]


def _theirs(given: argparse.Namespace) -> Server:
    token = given.token_file.read_text("utf-8").strip()
    client = Client(given.port, token)
    client.headers["x-vault-token"] = token
    paths = [f"/v1/{given.mount}/data/bench/s{number}" for number in range(SECRETS)]
    for number, path in enumerate(paths):
        fields = {"token": f"value-{number:04d}", "endpoint": "https://api.example.com"}
        client.call("POST", path, {"data": fields})
    client.close()
    requests = [Sent(path, method="GET", headers={"x-vault-token": token}) for path in paths]
    return Server("other", given.port, tuple(given.pid or ()), requests)


def _row(key: tuple[str, str, int], found: dict[tuple[str, str, int], list[Run]]) -> dict[str, Any]:
    name, load, connections = key
    of, base = found[key], found["other", load, connections]
    pairs = list(zip(of, base, strict=True))
    return {
        "server": name,
        "load": load,
        "connections": connections,
        "per_second": round(statistics.median(one.per_second for one in of)),
        "p50_ms": round(statistics.median(one.p50_ms for one in of), 3),
        "p99_ms": round(statistics.median(one.p99_ms for one in of), 3),
        "cpu_us": round(statistics.median(one.cpu_us for one in of), 1),
        "rate_to_other": round(statistics.median(a.per_second / b.per_second for a, b in pairs), 3),
        "p99_to_other": round(statistics.median(b.p99_ms / a.p99_ms for a, b in pairs), 3),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("reads of held secrets: requests/s   p50 / p99 ms   cpu us   rate and p99 to the other's")
    for row in result["rows"]:
        print(
            f"  {row['server']:<8}{row['load']:<10}{row['connections']:>3}{row['per_second']:>8}/s"
            f"   {row['p50_ms']:>8.2f} / {row['p99_ms']:>8.2f}{row['cpu_us']:>9.0f}"
            f"{row['rate_to_other']:>9.2f}{row['p99_to_other']:>9.2f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="where the other one listens on 127.0.0.1")
    parser.add_argument("--token-file", type=Path, required=True, help="a file that holds a token of the other one")
    parser.add_argument("--mount", default="secret", help="its KV v2 engine")
    parser.add_argument("--pid", type=int, action="append", help="a process of the other one, for its processor time")
    parser.add_argument("--short", action="store_true", help="fewer and shorter measurements: a smoke test")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser.parse_args()


if __name__ == "__main__":
    options = _arguments()
    finish("secret_reads_peer", measure(options), show, options)
