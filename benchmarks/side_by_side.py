"""The same job side by side: verify a key with a scope and a rate limit over HTTP, against two other products.

    python -m benchmarks.side_by_side [--short] [--json FILE]

    ours               `keyturn serve` on SQLite: scope asked, one limit charged, usage counted
    keyshield          keyshield (formerly fastapi-api-key) on FastAPI: scope asked; it has no limits
    keyshield-cached   the same with its cache of proven keys
    better-auth        better-auth's API-key plugin behind Node's HTTP server: permission asked, its limit charged

The peers keep their keys in memory, which is the fastest they have; ours are in SQLite, and in its replica.
better-auth comes from npm into `.peers/` the first time and is left out, with the reason, where npm is missing.
Measured in turns, several rounds each; a ratio is that of one round, and the median of the rounds is reported.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Plan, Result, Sent, run
from benchmarks.report import arguments, finish
from benchmarks.running import HEADERS, Client, peer, prepare
from keyturn.kernel.secret import random_base62
from keyturn.testing.child import spawn
from keyturn.testing.ports import free_port
from keyturn.testing.server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = (1, 8)
KEYS = 20
HERE = Path(__file__).parent
PEERS = HERE.parent / ".peers"
LIMIT = {"name": "burst", "limit": 1_000_000_000, "window_seconds": 3600}


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    rounds, seconds = (1, 4.0) if short else (3, 6.0)
    secret = {"BENCH_SECRET": random_base62(40)}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(RunningServer.start(folder / "data"))
        targets = {"ours": (server.port, _our_keys(server), {"authorization": f"Bearer {server.admin_token}"})}
        for which in ("keyshield", "keyshield-cached"):
            port = stack.enter_context(peer(which, folder, secret)).port
            targets[which] = (port, [_new_key(port) for _ in range(KEYS)], {})
        left_out = _better_auth_missing()
        if left_out is None:
            port, keys = stack.enter_context(_better_auth(folder, secret))
            targets["better-auth"] = (port, keys, {})
        found: dict[str, dict[int, list[Result]]] = {who: {n: [] for n in CONNECTIONS} for who in targets}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for who, (port, keys, headers) in targets.items():
                    result = run(Plan(port, _requests(keys, headers), connections, seconds, 0.5))
                    assert set(result.statuses) == {"200"}, f"{who} answered {result.statuses}"
                    found[who][connections].append(result)
    rows = [_row(found, connections) for connections in CONNECTIONS]
    return {"rounds": rounds, "seconds": seconds, "left_out": left_out, "rows": rows}


def _our_keys(server: RunningServer) -> list[str]:
    keys = prepare(server, KEYS)
    client = Client(server.port, server.admin_token)
    for one in keys:
        client.call("PATCH", f"/api/v1/keys/{one['id']}", {"limits": [LIMIT]})
    client.close()
    return [one["key"] for one in keys]


def _new_key(port: int) -> str:
    """Make a key at keyshield, and verify it once, so that a cache knows it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/keys", "", HEADERS)
    key: str = json.loads(connection.getresponse().read())["key"]
    connection.request("POST", "/api/v1/verify", json.dumps({"key": key}), HEADERS)
    connection.getresponse().read()
    connection.close()
    return key


def _requests(keys: list[str], headers: dict[str, str]) -> list[Sent]:
    sent = {"content-type": "application/json", **headers}
    return [
        Sent("/api/v1/verify", json.dumps({"key": key, "scopes": "orders:read", "ip": "192.0.2.7"}), headers=sent)
        for key in keys
    ]


def _better_auth_missing() -> str | None:
    """Install better-auth from npm unless it is there; return why it cannot be compared with."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "node and npm are not installed"
    PEERS.mkdir(exist_ok=True)
    for name in ("package.json", "better_auth_peer.mjs"):
        shutil.copy(HERE / name, PEERS / name)
    if not (PEERS / "node_modules" / "better-auth").exists():
        # Its own packages ask for versions of each other that do not exist together.
        done = subprocess.run(
            [npm, "install", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"],
            cwd=PEERS,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"npm could not install it: {done.stderr[-200:]}"
    return None


@contextlib.contextmanager
def _better_auth(folder: Path, environment: dict[str, str]) -> Iterator[tuple[int, list[str]]]:
    port = free_port()
    log = folder / "better-auth.log"
    node = shutil.which("node") or "node"
    process = spawn(
        [node, "better_auth_peer.mjs", str(port), str(KEYS)],
        directory=PEERS,
        log=log,
        environment={**os.environ, **environment},
        death_signal=signal.SIGKILL,
    )
    try:
        while not (text := log.read_text() if log.exists() else "").strip().endswith("]"):
            assert process.poll() is None, f"better-auth ended: {text[-2000:]}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        yield port, json.loads(text.strip().splitlines()[-1])
    finally:
        process.kill()
        process.wait()


def _row(found: dict[str, dict[int, list[Result]]], connections: int) -> dict[str, Any]:
    row: dict[str, Any] = {"connections": connections}
    for who, results in found.items():
        of = results[connections]
        pairs = zip(found["ours"][connections], of, strict=True)
        row[who] = {
            "per_second": round(statistics.median(one.per_second for one in of)),
            "p50_ms": round(statistics.median(one.p50_ms for one in of), 3),
            "p99_ms": round(statistics.median(one.p99_ms for one in of), 3),
            "ours_to_it": round(statistics.median(a.per_second / b.per_second for a, b in pairs), 1),
        }
    return row


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("verify with a scope and a limit over HTTP: requests/s  p50 / p99 ms  ours as a multiple")
    if result["left_out"]:
        print(f"  better-auth is left out: {result['left_out']}")
    for row in result["rows"]:
        print(f"  {row['connections']:>2} connections")
        for who, one in row.items():
            if isinstance(one, dict):
                print(
                    f"    {who:<17}{one['per_second']:>8}/s   {one['p50_ms']:>8.3f} / {one['p99_ms']:>8.3f}"
                    f"   {one['ours_to_it']:>7.1f} x"
                )


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("side_by_side", measure(short=given.short), show, given)
