"""Many held secrets: start-up, memory, the rotation of the root key, and that of the workspace key.

    python -m benchmarks.vault_scale [--short] [--json FILE]

    write     100 000 secrets of two fields over HTTP, 32 connections, one audit leaf and one commit share each
    start     from the start of the process to the first read of a secret, with one secret and with all of them
    memory    resident memory of the worker after that start
    root key  `keyturn root-key rotate`, rewrap over HTTP, `keyturn root-key retire`
    reseal    every value under a new workspace key, while one client reads: how long, and that client's p50 and p99

A short run takes 2 000 secrets.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import arguments, finish
from benchmarks.running import Client
from keyturn.testing.server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRETS: Final = 100_000
SECRETS_SHORT: Final = 2_000
WRITERS: Final = 32
FIELDS: Final = {"user": "payments", "value": "held-for-a-benchmark-" + "v" * 27}


def _path(number: int) -> str:
    return f"production/service-{number % 100}/s{number}"


def _write(server: RunningServer, numbers: Sequence[int]) -> float:
    """Put that many secrets over several connections; return the seconds it took."""

    def put(mine: Sequence[int]) -> None:
        client = Client(server.port, server.admin_token)
        for number in mine:
            client.call("PUT", f"/api/v1/secrets/{_path(number)}", {"fields": FIELDS})
        client.close()

    threads = [threading.Thread(target=put, args=(numbers[at::WRITERS],)) for at in range(WRITERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _restart(server: RunningServer) -> tuple[float, float]:
    """Start anew and read once; return the seconds that took, and the resident megabytes of the worker."""
    server.stop()
    began = time.perf_counter()
    server.restart()
    client = Client(server.port, server.admin_token)
    assert client.call("GET", f"/api/v1/secrets/{_path(0)}")["fields"] == FIELDS
    seconds = time.perf_counter() - began
    client.close()
    resident = max(int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) for pid in server.pids)
    return seconds, resident * os.sysconf("SC_PAGE_SIZE") / 1e6


def _keyturn(server: RunningServer, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    token = {"KEYTURN_URL": server.url, "KEYTURN_TOKEN_FILE": str(server.data_dir / "admin-token")}
    done = subprocess.run(
        [sys.executable, "-m", "keyturn", *words],
        env=environment | token | {"KEYTURN_DATA": str(server.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rotate_root_key(server: RunningServer) -> dict[str, float]:
    old = _keyturn(server, "root-key", "status").splitlines()[1].split()[0]
    began = time.perf_counter()
    _keyturn(server, "root-key", "rotate")
    _keyturn(server, "root-key", "rewrap")
    rewrapped = time.perf_counter()
    _keyturn(server, "root-key", "retire", old, "--keep", str(server.data_dir / "retired"))
    client = Client(server.port, server.admin_token)
    assert client.call("GET", f"/api/v1/secrets/{_path(0)}")["fields"] == FIELDS
    client.close()
    return {"rotate_and_rewrap_s": round(rewrapped - began, 2), "all_s": round(time.perf_counter() - began, 2)}


def _reseal(server: RunningServer) -> dict[str, float]:
    done = threading.Event()
    waits: list[float] = []

    def read() -> None:
        client = Client(server.port, server.admin_token)
        number = 0
        while not done.is_set():
            began = time.perf_counter()
            assert client.call("GET", f"/api/v1/secrets/{_path(number % SECRETS_SHORT)}")["fields"] == FIELDS
            waits.append(time.perf_counter() - began)
            number += 1
        client.close()

    reader = threading.Thread(target=read)
    reader.start()
    began = time.perf_counter()
    _keyturn(server, "workspace-keys", "rotate")
    _keyturn(server, "workspace-keys", "reseal")
    seconds = time.perf_counter() - began
    done.set()
    reader.join()
    waits.sort()
    return {
        "seconds": round(seconds, 1),
        "reads": len(waits),
        "p50_ms": round(statistics.median(waits) * 1e3, 2),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1e3, 2),
    }


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    secrets = SECRETS_SHORT if short else SECRETS
    with tempfile.TemporaryDirectory() as name, RunningServer.start(Path(name) / "data") as server:
        _write(server, [0])
        alone = [_restart(server) for _ in range(3)]
        seconds = _write(server, range(1, secrets))
        full = [_restart(server) for _ in range(3)]
        size = sum(path.stat().st_size for path in server.data_dir.iterdir() if path.is_file())
        root_key = _rotate_root_key(server)
        reseal = _reseal(server)
    return {
        "secrets": secrets,
        "write": {"seconds": round(seconds, 1), "per_second": round(secrets / seconds)},
        "start": [_row("one secret", alone), _row(f"{secrets} secrets", full)],
        "database_mb": round(size / 1e6),
        "root_key": root_key,
        "reseal": reseal,
    }


def _row(what: str, found: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": round(statistics.median(seconds for seconds, _ in found), 2),
        "resident_mb": round(statistics.median(resident for _, resident in found)),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print("{secrets} secrets; the data folder has {database_mb} MB".format(**result))
    print("write     {seconds} s, {per_second} a second".format(**result["write"]))
    for row in result["start"]:
        print("start     {what}: {seconds} s to the first value, {resident_mb} MB resident".format(**row))
    print(
        "root key  rotated and rewrapped in {rotate_and_rewrap_s} s, retired by {all_s} s".format(**result["root_key"])
    )
    print("reseal    {seconds} s; {reads} reads meanwhile, p50 {p50_ms} ms, p99 {p99_ms} ms".format(**result["reseal"]))


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("vault_scale", measure(short=given.short), show, given)
