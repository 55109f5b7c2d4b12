"""A load generator: keep-alive connections over raw sockets, each with one request in flight.

    python -m benchmarks.load < plan.json > result.json

It runs in a process of its own, so that it does not share an interpreter with what it measures.  The plan names a
port, requests (method, path, headers, body), connections, seconds, and how long to warm up before counting.  A plan
with `requests_max` ends when that many were answered, each request sent once.  With `pause_seconds` a connection waits
that long before its next request, and the first ones are spread over that time.  Latency is from the write of a request
to the last byte of its response.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections import Counter
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sent(msgspec.Struct, frozen=True):
    """One HTTP/1.1 request."""

    path: str
    body: str = ""
    method: str = "POST"
    headers: dict[str, str] = {}

    def encode(self, port: int) -> bytes:
        """Return its bytes."""
        raw = self.body.encode()
        headers = {"host": f"127.0.0.1:{port}", "content-length": str(len(raw)), **self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join((*lines, "", "")).encode() + raw


class Plan(msgspec.Struct, frozen=True):
    """What to do."""

    port: int
    requests: list[Sent]
    connections: int
    seconds: float = 5.0
    warm_up_seconds: float = 1.0
    requests_max: int | None = None
    pause_seconds: float = 0.0


class Result(msgspec.Struct, frozen=True):
    """What was measured; latencies in milliseconds.  `answered` counts all, those while it warmed up as well."""

    connections: int
    requests: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[str, int]
    answered: int = 0


def run(plan: Plan) -> Result:
    """Run a plan in a child process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"], input=msgspec.json.encode(plan), check=True, stdout=subprocess.PIPE
    )
    return msgspec.json.decode(done.stdout, type=Result)


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last response is complete."""

    def __init__(self, running: _Run) -> None:
        self._running = running
        self._buffer = b""
        self._expected = 0
        self._sent_at = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._later(self._running.spread())

    def connection_lost(self, exc: Exception | None) -> None:
        self._running.closed(exc)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if not self._expected:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._expected = end + 4 + _content_length(data[:end])
        if len(data) < self._expected:
            self._buffer = data
            return
        assert len(data) == self._expected, "more than one response to one request"
        self._running.answered(perf_counter_ns() - self._sent_at, data[9:12])
        self._buffer, self._expected = b"", 0
        self._later(self._running.pause)

    def _later(self, seconds: float) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._send)
        else:
            self._send()

    def _send(self) -> None:
        request = self._running.next()
        if request is None:
            self._transport.close()
            return
        self._sent_at = perf_counter_ns()
        self._transport.write(request)


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        encoded = [request.encode(plan.port) for request in plan.requests]
        self._left: Iterator[bytes] = (
            itertools.cycle(encoded) if plan.requests_max is None else iter(encoded[: plan.requests_max])
        )
        self._counting = plan.requests_max is not None
        self._stopping = False
        self._open = plan.connections
        self._done = asyncio.Event()
        self._latencies: list[int] = []
        self._statuses: Counter[bytes] = Counter()
        self._answered = 0
        self._begun = 0
        self.pause = plan.pause_seconds

    async def measure(self) -> Result:
        plan, loop = self._plan, asyncio.get_running_loop()
        started = perf_counter()
        for _ in range(plan.connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", plan.port)
        if plan.requests_max is None:
            await asyncio.sleep(plan.warm_up_seconds)
            self._counting = True
            started = perf_counter()
            await asyncio.sleep(plan.seconds)
            seconds = perf_counter() - started
            self._counting, self._stopping = False, True
            await self._done.wait()
        else:
            await self._done.wait()
            seconds = perf_counter() - started
        found = sorted(self._latencies)
        assert found, "nothing was answered"
        return Result(
            connections=plan.connections,
            requests=len(found),
            seconds=round(seconds, 3),
            per_second=round(len(found) / seconds, 1),
            p50_ms=quantile(found, 0.5),
            p99_ms=quantile(found, 0.99),
            max_ms=quantile(found, 1.0),
            statuses={status.decode(): count for status, count in self._statuses.items()},
            answered=self._answered,
        )

    def spread(self) -> float:
        """Return how long the next connection waits before its first request."""
        self._begun += 1
        return self.pause * self._begun / self._plan.connections

    def next(self) -> bytes | None:
        return None if self._stopping else next(self._left, None)

    def answered(self, nanoseconds: int, status: bytes) -> None:
        self._answered += 1
        if self._counting:
            self._latencies.append(nanoseconds)
            self._statuses[status] += 1

    def closed(self, error: Exception | None) -> None:
        assert error is None, f"the connection was lost: {error}"
        self._open -= 1
        if not self._open:
            self._done.set()


def quantile(ordered: list[int], share: float) -> float:
    """Return a quantile of ascending nanoseconds, in milliseconds."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6, 4)


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    assert at >= 0, "the response does not say its length"
    return int(lower[at + 15 :].partition(b"\r\n")[0])


def main() -> None:
    """Run the plan on standard input."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    print(json.dumps(msgspec.to_builtins(asyncio.run(_Run(plan).measure()))))


if __name__ == "__main__":
    main()
