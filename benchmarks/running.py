"""Servers for benchmarks: our own, on either database, and peers; and the machine they run on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Plan, run
from keyturn.testing.child import members_of_group, spawn
from keyturn.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from keyturn.testing.server import RunningServer

KEYSPACE = "bench"
HEADERS = {"content-type": "application/json"}


def machine() -> dict[str, object]:
    """Describe the machine, as a report needs it."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


class Client:
    """A blocking client of one server with one connection."""

    def __init__(self, port: int, token: str) -> None:
        """Call the server on `port` with a management token."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {**HEADERS, "authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, body: object | None = None) -> Any:  # noqa: ANN401 -- decoded JSON
        """Send a request and return the decoded answer; stops the benchmark unless it is a success."""
        raw = None if body is None else json.dumps(body)
        self._connection.request(method, path, raw, self.headers)
        response = self._connection.getresponse()
        text = response.read()
        assert response.status < 300, f"{method} {path} answered {response.status}: {text[:300]!r}"
        return json.loads(text)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


LIMITS = (
    {"name": "burst", "limit": 1_000_000_000, "window_seconds": 1},
    {"name": "minute", "limit": 1_000_000_000, "window_seconds": 60},
)


def prepare(server: RunningServer, keys: int, keyspace: str = KEYSPACE, **more: object) -> list[dict[str, Any]]:
    """Create a keyspace with these settings and issue keys; return what was answered for each."""
    client = Client(server.port, server.admin_token)
    body = {"name": keyspace, "prefix": keyspace, "environment": "production", **more}
    client.call("POST", "/api/v1/keyspaces", body)
    one = {"keyspace": keyspace, "owner": "alice", "purpose": "benchmark", "scopes": ["orders:read", "orders:list"]}
    issued: list[dict[str, Any]] = []
    while len(issued) < keys:
        count = min(500, keys - len(issued))
        issued += client.call("POST", "/api/v1/keys/bulk", {"keys": [one] * count})["items"]
    client.close()
    return issued


@dataclass(frozen=True)
class Run:
    """What one run of a load has shown."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def charged(who: str, pids: Iterable[int], plan: Plan) -> Run:
    """Put a load on a server and return what it has shown, with what its processes were charged for a request."""
    before = processor_seconds(pids)
    result = run(plan)
    spent = processor_seconds(pids) - before
    assert set(result.statuses) == {"200"}, f"{who} answered {result.statuses}"
    return Run(result.per_second, result.p50_ms, result.p99_ms, spent / result.answered * 1e6)


@dataclass(frozen=True)
class Peer:
    """A running peer."""

    port: int
    group: int

    @property
    def pids(self) -> list[int]:
        """The parent and its workers."""
        return members_of_group(self.group)


def processor_seconds(pids: Iterable[int]) -> float:
    """Return how much of a processor these processes have had so far."""
    ticks = 0
    for pid in pids:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def peer(which: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """Run one of `benchmarks.peers`."""
    port = free_port()
    process = spawn(
        [sys.executable, "-m", "benchmarks.peers", which, str(port)],
        directory=Path.cwd(),
        log=folder / f"{which}.log",
        environment={**os.environ, **(environment or {})},
        death_signal=signal.SIGTERM,
    )
    try:
        _wait_for(port, process, folder / f"{which}.log")
        yield Peer(port, process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the peer ended: {log.read_text()[-2000:]}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/api/v1/verify", '{"key":"x"}', HEADERS)
            connection.getresponse().read()
            return
        connection.close()
        time.sleep(0.05)
    raise AssertionError("the peer did not answer")
