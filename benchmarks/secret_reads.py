"""Reads and writes of held secrets over HTTP, with every access durably on record before its value leaves.

    python -m benchmarks.secret_reads [--short] [--json FILE]

    constant   a raw ASGI application on the same granian that answers GET with a constant
    native     GET /api/v1/secrets/{path}: a service's management token, 200 secrets of two fields, in turns
    vault      GET /v1/production/data/{path}, the KV v2 route of the Vault-compatible surface, where it is served
    paced      the same from 64 clients that ask ten times a second each, which is load and no saturation
    put        PUT /api/v1/secrets/{path}: a new version each
    vault-put  POST /v1/production/data/{path}
    hvac       the same reads by the `hvac` client, in threads of a process of its own

Each of 1, 8 and 64 connections has one request in flight.  They are measured in turns, several rounds each, since the
machine is shared; a ratio is that of one round, and the median is reported.  `per_commit` is how many accesses shared
one commit, which is one fsync on SQLite (WAL, synchronous=FULL): counted by the server, not assumed.  `cpu` is the
processor's time that the server took for a request.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Plan, Sent, run
from benchmarks.report import arguments, finish
from benchmarks.running import Client, Peer, peer, processor_seconds
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer

CONNECTIONS = (1, 8, 64)
SECRETS = 200
TARGET_MS = 10.0
PACED_SECONDS = 0.1
FOLDER = "production/bench"
HVAC = """
import json, sys, threading, time
import hvac
port, token, threads, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
found, end = [], time.perf_counter() + seconds
def read(first):
    client = hvac.Client(f"http://127.0.0.1:{port}", token)
    number = first
    while (began := time.perf_counter()) < end:
        path = f"bench/s{number % 200}"
        answer = client.secrets.kv.v2.read_secret_version(path, mount_point="production", raise_on_deleted_version=True)
        assert answer["data"]["data"]["token"]
        found.append(time.perf_counter() - began)
        number += 1
ready = [threading.Thread(target=read, args=(n * 7,)) for n in range(threads)]
for one in ready: one.start()
for one in ready: one.join()
found.sort()
print(json.dumps([len(found) / seconds, found[len(found) // 2] * 1e3, found[int(len(found) * 0.99)] * 1e3]))
"""


@dataclass(frozen=True)
class Run:
    """What one run has shown."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    per_commit: float


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    rounds, seconds = (2, 3.0) if short else (5, 4.0)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with peer("constant", folder) as constant:
            with RunningServer.start(folder / "sqlite") as server:
                rows += _measure("sqlite", server, constant, rounds, seconds)
            with (
                PostgresServer.start() as postgres,
                RunningServer.start(folder / "postgresql", postgres.create_database()) as server,
            ):
                rows += _measure("postgresql", server, constant, max(1, rounds // 2), seconds)
    return {"rounds": rounds, "seconds": seconds, "rows": rows}


def _measure(database: str, server: RunningServer, constant: Peer, rounds: int, seconds: float) -> list[dict[str, Any]]:
    token = prepare(server)
    kinds = _requests(token, vault=_has_vault(server, token))
    found: dict[tuple[str, int], list[Run]] = {}
    for _ in range(rounds):
        for connections in CONNECTIONS:
            for kind, requests in kinds.items():
                asked: RunningServer | Peer = constant if kind == "constant" else server
                plan = Plan(asked.port, requests, connections, seconds, 0.5)
                found.setdefault((kind, connections), []).append(_run(kind, asked, plan))
        plan = Plan(server.port, kinds["native"], max(CONNECTIONS), seconds, 0.5, pause_seconds=PACED_SECONDS)
        found.setdefault(("paced", max(CONNECTIONS)), []).append(_run("paced", server, plan))
    rows = [_row(database, kind, connections, found) for kind in kinds for connections in CONNECTIONS]
    rows.append(_row(database, "paced", max(CONNECTIONS), found))
    if "vault" in kinds:
        rows += [_hvac(database, server, token, connections, seconds) for connections in (1, 8)]
    return rows


def prepare(server: RunningServer) -> str:
    """Write the secrets, and return the token of a service that may read and write them."""
    admin = Client(server.port, server.admin_token)
    for number in range(SECRETS):
        body = {"fields": {"token": f"value-{number:04d}", "endpoint": "https://api.example.com"}}
        admin.call("PUT", f"/api/v1/secrets/{FOLDER}/s{number}", body)
    made = admin.call("POST", "/api/v1/principals", {"kind": "service", "name": "bench"})
    for action in ("secret.read", "secret.put"):
        grant = {"principal": made["id"], "actions": [action], "resource": f"secret/{FOLDER}/*"}
        admin.call("POST", "/api/v1/grants", grant)
    token: str = admin.call("POST", f"/api/v1/principals/{made['id']}/tokens", {"name": "bench"})["token"]
    admin.close()
    return token


def _has_vault(server: RunningServer, token: str) -> bool:
    client = Client(server.port, token)
    client.headers["x-vault-token"] = token
    with contextlib.suppress(AssertionError, json.JSONDecodeError):
        client.call("GET", "/v1/production/data/bench/s0")
        return True
    return False


def _requests(token: str, *, vault: bool) -> dict[str, list[Sent]]:
    ours = {"authorization": f"Bearer {token}"}
    theirs = {"x-vault-token": token}
    names = [f"s{number}" for number in range(SECRETS)]
    written = {"token": "another-value", "endpoint": "https://api.example.com"}
    kinds = {
        "constant": [Sent("/constant", method="GET")],
        "native": [Sent(f"/api/v1/secrets/{FOLDER}/{name}", method="GET", headers=ours) for name in names],
    }
    if vault:
        kinds["vault"] = [Sent(f"/v1/production/data/bench/{name}", method="GET", headers=theirs) for name in names]
    sent = {"content-type": "application/json"}
    kinds["put"] = [
        Sent(f"/api/v1/secrets/{FOLDER}/{name}", json.dumps({"fields": written}), "PUT", {**ours, **sent})
        for name in names
    ]
    if vault:
        kinds["vault-put"] = [
            Sent(f"/v1/production/data/bench/{name}", json.dumps({"data": written}), "POST", {**theirs, **sent})
            for name in names
        ]
    return kinds


def _run(kind: str, server: RunningServer | Peer, plan: Plan) -> Run:
    before, commits = processor_seconds(server.pids), _commits(server)
    result = run(plan)
    spent = processor_seconds(server.pids) - before
    assert set(result.statuses) <= {"200", "201"}, f"{kind} answered {result.statuses}"
    committed = _commits(server) - commits
    per_commit = result.answered / committed if committed else 0.0
    return Run(result.per_second, result.p50_ms, result.p99_ms, spent / result.answered * 1e6, per_commit)


def _commits(server: RunningServer | Peer) -> float:
    """Return how many numbered commits the server has made so far."""
    if isinstance(server, Peer):
        return 0.0
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("keyturn_commits_total"))


def _row(database: str, kind: str, connections: int, found: dict[tuple[str, int], list[Run]]) -> dict[str, Any]:
    of, base = found[kind, connections], found["constant", connections]
    ratios = [one.per_second / other.per_second for one, other in zip(of, base, strict=True)]
    return {
        "database": database,
        "kind": kind,
        "connections": connections,
        "per_second": round(statistics.median(one.per_second for one in of)),
        "p50_ms": round(statistics.median(one.p50_ms for one in of), 3),
        "p99_ms": round(statistics.median(one.p99_ms for one in of), 3),
        "cpu_us": round(statistics.median(one.cpu_us for one in of), 1),
        "per_commit": round(statistics.median(one.per_commit for one in of), 1),
        "to_constant": round(statistics.median(ratios), 3),
    }


def _hvac(database: str, server: RunningServer, token: str, threads: int, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", HVAC, str(server.port), token, str(threads), str(seconds)],
        check=True,
        stdout=subprocess.PIPE,
    )
    per_second, p50, p99 = json.loads(done.stdout)
    return {
        "database": database,
        "kind": "hvac",
        "connections": threads,
        "per_second": round(per_second),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("held secrets over HTTP, one worker: requests/s   p50 / p99 ms   cpu us   accesses to a commit   to constant")
    for row in result["rows"]:
        line = (
            f"  {row['database']:<11}{row['kind']:<10}{row['connections']:>3}{row['per_second']:>8}/s"
            f"   {row['p50_ms']:>8.2f} / {row['p99_ms']:>8.2f}"
        )
        if "cpu_us" in row:
            line += f"{row['cpu_us']:>9.0f}{row['per_commit']:>9.1f}{row['to_constant']:>9.3f}"
        print(line)
    print(f"  target: reads of 64 clients within {TARGET_MS:g} ms, p99")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("secret_reads", measure(short=given.short), show, given)
