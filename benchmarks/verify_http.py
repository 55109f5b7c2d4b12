"""Verify over HTTP: requests per second and latency with one worker, as ratios to two peers in the same run.

    python -m benchmarks.verify_http [--short] [--json FILE]

    ours       `keyturn serve` on SQLite: bearer token, key with scopes asked, usage counted
    limits     the same with two limits charged, in memory, and told in body and RateLimit fields
    constant   the same granian and ASGI, the same POST body read, a constant of the same size answered
    native     the same on granian's own protocol, RSGI (see docs/decisions/0014)
    plain      FastAPI + SQLAlchemy + SHA-256 on the same granian: one look-up in SQLite for each request

They are measured in turns, several rounds each, because the machine is shared; a ratio is that of one round, and
the median of the rounds is reported, and the lowest and highest.  The load comes from a process of its own over 1, 8
and 32 connections.  `cpu` is the processor's time that the server took for a request, in microseconds: what else runs
on the machine changes it least, and its ratio is that of requests a second on a machine with processors to spare.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load import Plan, Sent
from benchmarks.report import arguments, finish
from benchmarks.running import LIMITS, Peer, Run, charged, peer, prepare
from keyturn.testing.server import RunningServer

CONNECTIONS = (1, 8, 32)
KEYS = 200
SCOPES = "orders:read"
TARGET = 0.70
WHO = ("ours", "limits", "constant", "native", "plain")

RATIOS = (
    ("ours", "constant"),
    ("limits", "constant"),
    ("limits", "native"),
    ("limits", "ours"),
    ("ours", "plain"),
    ("constant", "native"),
)


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    rounds, seconds = (2, 1.5) if short else (5, 4.0)
    with tempfile.TemporaryDirectory() as name, RunningServer.start(Path(name) / "data") as server:
        folder = Path(name)
        keys = [one["key"] for one in prepare(server, KEYS)]
        limited = [one["key"] for one in prepare(server, KEYS, "limited", limits=LIMITS)]
        digests = ",".join(hashlib.sha256(key.encode()).hexdigest() for key in keys)
        environment = {"BENCH_DATABASE": f"sqlite:///{folder / 'plain.db'}", "BENCH_DIGESTS": digests}
        with (
            peer("constant", folder) as constant,
            peer("native", folder) as native,
            peer("plain", folder, environment) as plain,
        ):
            asked_of = (server, server, constant, native, plain)
            servers: dict[str, RunningServer | Peer] = dict(zip(WHO, asked_of, strict=True))
            usual, with_limits = requests(keys, server.admin_token), requests(limited, server.admin_token)
            found: dict[str, dict[int, list[Run]]] = {who: {n: [] for n in CONNECTIONS} for who in WHO}
            for _ in range(rounds):
                for connections in CONNECTIONS:
                    for who, asked in servers.items():
                        sent = with_limits if who == "limits" else usual
                        found[who][connections].append(
                            charged(who, asked.pids, Plan(asked.port, sent, connections, seconds, 0.5))
                        )
    return {"rounds": rounds, "seconds": seconds, "rows": [_row(found, connections) for connections in CONNECTIONS]}


def requests(keys: list[str], token: str) -> list[Sent]:
    """Return a verification of each key."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    return [
        Sent("/api/v1/verify", json.dumps({"key": key, "scopes": SCOPES, "ip": "192.0.2.7"}), headers=headers)
        for key in keys
    ]


def _row(found: dict[str, dict[int, list[Run]]], connections: int) -> dict[str, Any]:
    row: dict[str, Any] = {"connections": connections}
    for who, results in found.items():
        of = results[connections]
        row[who] = {
            "per_second": round(statistics.median(one.per_second for one in of)),
            "p50_ms": round(statistics.median(one.p50_ms for one in of), 3),
            "p99_ms": round(statistics.median(one.p99_ms for one in of), 3),
            "cpu_us": round(statistics.median(one.cpu_us for one in of), 1),
        }
    for one, other in RATIOS:
        pairs = zip(found[one][connections], found[other][connections], strict=True)
        ratios = [a.per_second / b.per_second for a, b in pairs]
        row[f"{one}_to_{other}"] = {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
            "cpu": round(row[other]["cpu_us"] / row[one]["cpu_us"], 3),
        }
    return row


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("verify over HTTP, one worker: requests/s  p50 / p99 ms  cpu us")
    for row in result["rows"]:
        print(f"  {row['connections']:>2} connections")
        for who in WHO:
            one = row[who]
            times = f"{one['p50_ms']:>7.3f} / {one['p99_ms']:>7.3f}   cpu {one['cpu_us']:>7.1f}"
            print(f"    {who:<9}{one['per_second']:>8}/s   {times}")
        for name in (f"{one}_to_{other}" for one, other in RATIOS):
            one = row[name]
            spread = f"({one['lowest']:.2f} - {one['highest']:.2f})"
            print(f"    {name:<20}{one['median']:>7.2f}  {spread}, by cpu {one['cpu']:.2f}")
    print(f"  target: {TARGET:.2f} of the constant, with limits too")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("verify_http", measure(short=given.short), show, given)
