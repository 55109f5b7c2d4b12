"""Issue throughput over HTTP: keys per second, one by one and in bulk, on both databases.

    python -m benchmarks.issue [--short] [--json FILE]

Every issue is a durable commit with its audit leaf and change row before it is answered; requests that arrive together
share one.  Bulk is 100 keys to a request, all of them or none.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load import Plan, Sent, run
from benchmarks.report import arguments, finish
from benchmarks.running import KEYSPACE, prepare
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer

CONNECTIONS = (1, 8, 32)
BULK = 100


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    seconds = 1.5 if short else 5.0
    rows = []
    with tempfile.TemporaryDirectory() as name:
        with RunningServer.start(Path(name) / "sqlite") as server:
            rows += _rows("sqlite", server, seconds)
        with (
            PostgresServer.start() as postgres,
            RunningServer.start(Path(name) / "postgresql", postgres.create_database()) as server,
        ):
            rows += _rows("postgresql", server, seconds)
    return {"seconds": seconds, "rows": rows}


def _rows(database: str, server: RunningServer, seconds: float) -> list[dict[str, Any]]:
    prepare(server, 1)
    headers = {"content-type": "application/json", "authorization": f"Bearer {server.admin_token}"}
    one = {"keyspace": KEYSPACE, "owner": "alice", "purpose": "benchmark", "scopes": ["orders:read"]}
    single = Sent("/api/v1/keys", json.dumps(one), headers=headers)
    bulk = Sent("/api/v1/keys/bulk", json.dumps({"keys": [one] * BULK}), headers=headers)
    rows = []
    for connections in CONNECTIONS:
        found = run(Plan(server.port, [single], connections, seconds, 0.5))
        assert set(found.statuses) == {"201"}, f"issuing answered {found.statuses}"
        rows.append(
            {
                "database": database,
                "kind": "single",
                "connections": connections,
                "keys_per_second": round(found.per_second),
                "p50_ms": found.p50_ms,
                "p99_ms": found.p99_ms,
            }
        )
    found = run(Plan(server.port, [bulk], 1, seconds, 0.5))
    assert set(found.statuses) == {"201"}, f"issuing in bulk answered {found.statuses}"
    rows.append(
        {
            "database": database,
            "kind": f"bulk of {BULK}",
            "connections": 1,
            "keys_per_second": round(found.per_second * BULK),
            "p50_ms": found.p50_ms,
            "p99_ms": found.p99_ms,
        }
    )
    return rows


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("issue over HTTP, one worker: keys/s   request p50 / p99 ms")
    for row in result["rows"]:
        print(
            f"  {row['database']:<11}{row['kind']:<12}{row['connections']:>3} connections"
            f"{row['keys_per_second']:>8}/s   {row['p50_ms']:>8.2f} / {row['p99_ms']:>8.2f}"
        )


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("issue", measure(short=given.short), show, given)
