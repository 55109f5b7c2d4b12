"""`keyturn.client.Verifier`: what a verification costs in an application's own process.

    python -m benchmarks.verifier [--short] [--json FILE]

A server is started and its keyspaces are replicated by the feed, as an application has it: the threads that follow,
confirm and report run while it is measured.  Each row is `Verifier.verify` as it is called, with a verdict made and
usage counted; keys are taken at random out of a thousand, every one with a scope to check.

    floor      shape and check, SHA-256 and keyed BLAKE2b: what no policy could save, to compare machines by
    scope      a scope query
    limited    a scope query and two limits of the plan that every key is on
    address    a scope query, two limits and a CIDR restriction
    refused    a scope that the key does not have

The rows take turns, so that noise meets all alike; the cost of reading the clock is taken off.  Median and p99 are of
all calls, `quiet` is the lowest median of one pass, and the ratio is that of the quiet medians to the floor's.
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import arguments, finish
from benchmarks.running import Client
from benchmarks.verify_inprocess import PEPPER, microseconds, timed
from keyturn.client import Verifier
from keyturn.kernel.tokenformat import digest, sha256, version_id_of
from keyturn.testing.server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS: Final = 1000
TARGET_US: Final = 5.0
ADDRESS: Final = "10.1.2.3"
PLAN: Final = {
    "name": "bench",
    "limits": [
        {"name": "burst", "limit": 1_000_000_000, "window_seconds": 1},
        {"name": "minute", "limit": 1_000_000_000, "window_seconds": 60},
    ],
}


def _prepare(client: Client) -> dict[str, list[str]]:
    """Make three keyspaces and a thousand keys in each; return the keys."""
    client.call("POST", "/api/v1/plans", PLAN)
    keyspaces: dict[str, dict[str, Any]] = {
        "scope": {},
        "limited": {"default_plan": "bench"},
        "address": {"default_plan": "bench", "restrictions": {"cidrs": ["10.0.0.0/8", "2001:db8::/32"]}},
    }
    found: dict[str, list[str]] = {}
    for name, more in keyspaces.items():
        one = {"name": name, "prefix": name, "tag": "live", "environment": "production", **more}
        client.call("POST", "/api/v1/keyspaces", one)
        key = {"keyspace": name, "owner": "alice", "purpose": "benchmark", "scopes": ["orders:read", "orders:list"]}
        pages = [client.call("POST", "/api/v1/keys/bulk", {"keys": [key] * 500})["items"] for _ in range(KEYS // 500)]
        found[name] = [made["key"] for made in chain.from_iterable(pages)]
    return found


def _calls(verifier: Verifier, keys: dict[str, list[str]]) -> dict[str, list[Callable[[], Any]]]:
    verify = verifier.verify

    def floor(key: str) -> Callable[[], Any]:
        return lambda: (version_id_of(key), digest(PEPPER, sha256(key)))

    def scope(key: str) -> Callable[[], Any]:
        return lambda: verify(key, scopes="orders:read")

    def address(key: str) -> Callable[[], Any]:
        return lambda: verify(key, scopes="orders:read", ip=ADDRESS)

    def refused(key: str) -> Callable[[], Any]:
        return lambda: verify(key, scopes="orders:write")

    assert all(scope(key)() for name in ("scope", "limited") for key in keys[name])
    assert all(address(key)() for key in keys["address"])
    assert not any(refused(key)() for key in keys["scope"])
    assert len(scope(keys["limited"][0])().limits) == len(PLAN["limits"])
    return {
        "clock": [lambda: None] * KEYS,
        "floor": [floor(key) for key in keys["scope"]],
        "scope": [scope(key) for key in keys["scope"]],
        "limited": [scope(key) for key in keys["limited"]],
        "address": [address(key) for key in keys["address"]],
        "refused": [refused(key) for key in keys["scope"]],
    }


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    passes = 20 if short else 200
    with tempfile.TemporaryDirectory() as name, RunningServer.start(Path(name) / "data") as server:
        client = Client(server.port, server.admin_token)
        keys = _prepare(client)
        client.close()
        with Verifier(server.url, server.admin_token, ["scope", "limited", "address"]) as verifier:
            assert verifier.ready
            found = timed(_calls(verifier, keys), passes)
            counters = verifier.counters()
    assert counters["asked"] == 0, "memory was not enough"
    clock = statistics.median(chain.from_iterable(found.pop("clock")))
    rows = {kind: microseconds(taken, clock) for kind, taken in found.items()}
    floor = rows["floor"]["quiet_us"]
    for row in rows.values():
        row["ratio_to_floor"] = round(row["quiet_us"] / floor, 2)
    return {"keys": KEYS, "passes": passes, "calls": passes * KEYS, "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"Verifier.verify, {result['keys']} keys, us: median / p99 / quiet median, and that to the floor's")
    for name, row in result["rows"].items():
        times = "{median_us:>8.2f} /{p99_us:>8.2f} /{quiet_us:>7.2f}".format(**row)
        print(f"  {name:<9}{times}{row['ratio_to_floor']:>8.2f}")
    print(f"  target: limited <= {TARGET_US} us median")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("verifier", measure(short=given.short), show, given)
