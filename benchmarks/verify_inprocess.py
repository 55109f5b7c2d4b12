"""In-process verify: time per decision, time to load, and resident memory.

    python benchmarks/verify_inprocess.py [--keys 1000 1000000] [--json FILE]

Each row is a fresh child process.  Records are decoded from MessagePack, as a snapshot is, and applied; the
memory is what the process grew by from before the first record to after the last, with garbage collected.
Then randomly chosen keys are verified: every one has a scope query and a CIDR restriction to pass.

    floor     shape and check, SHA-256 and keyed BLAKE2b alone: what no policy could save, to compare machines by
    decide    rules.verify(replica, request, now, allowed): shape, look-up, digest, state, times, CIDR, scopes
    limited   request, decision, and admission.admit with two limits of a plan that every key is on, in memory
    whole     the decision with the request built, and freshness checked before and after

Every call is timed by itself; the cost of reading the clock, measured in the same run, is taken off.  Median and
p99 are of all calls; `quiet` is the lowest median of one pass over the sample, what the machine does undisturbed.
`shared` keys have 10 000 owners, 200 scope lists and 100 restrictions between them, and half expire.
`distinct` keys have an owner, a name, metadata and an expiry each.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgspec

from keyturn.kernel.ids import new_id
from keyturn.kernel.tokenformat import digest, mint, sha256, version_id_of
from keyturn.verify.admission import admit
from keyturn.verify.freshness import Freshness
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.model import Allowed, Request
from keyturn.verify.replica import Replica
from keyturn.verify.rules import verify
from keyturn.wire.policy import (
    KeyRecord,
    KeyspaceRecord,
    LimitRule,
    PepperRecord,
    PlanRecord,
    Restrictions,
    VersionRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.verify.standing import KeyspacePolicy

NOW = 1_700_000_000.0
PEPPER = bytes(range(32))
CHUNK = 10_000
SAMPLE = 2_000
PASSES = 100
TARGET_US = 5.0
TARGET_MB = 600.0

KEYSPACE = KeyspaceRecord(
    id="ks_bench",
    workspace="ws_bench",
    name="bench",
    prefix="acme",
    tag="live",
    environment="production",
    state="active",
    stale_after_seconds=60.0,
    peppers=(PepperRecord(1, PEPPER),),
)
PLAN = PlanRecord(
    id="pln_bench",
    workspace="ws_bench",
    name="bench",
    limits=(LimitRule("burst", 1_000_000_000, 1), LimitRule("minute", 1_000_000_000, 60)),
)
LIMITED = msgspec.structs.replace(KEYSPACE, default_plan=PLAN.id)
SCOPES = [tuple(f"svc{n}:{verb}" for verb in ("read", "write", "list:*")) for n in range(200)]
CIDRS = [Restrictions(cidrs=(f"10.{n}.0.0/16", f"192.168.{n}.0/24", "2001:db8::/32")) for n in range(100)]

Presented = tuple[str, str, str]
"""Key, scope query, address."""


def make_key(number: int, *, distinct: bool) -> tuple[KeyRecord, Presented]:
    """Mint a key and its record."""
    minted = mint("acme", "live")
    presented = minted.key.reveal()
    version = VersionRecord(
        id=minted.version_id,
        number=1,
        state="current",
        digest_kind="blake2b",
        digest=digest(PEPPER, sha256(presented)),
        pepper=1,
    )
    record = KeyRecord(
        id=new_id("key", NOW),
        keyspace="ks_bench",
        owner=f"team-{number:07}" if distinct else f"team-{number % 10_000:07}",
        environment="production",
        state="active",
        versions=(version,),
        scopes=SCOPES[number % 200],
        restrictions=CIDRS[number % 100],
        expires_at=NOW + 1e6 + number if distinct or number % 2 else None,
        name=f"worker {number}" if distinct else None,
        metadata={"customer": f"cus_{number:07}"} if distinct else None,
    )
    return record, (presented, f"svc{number % 200}:read", f"10.{number % 100}.7.7")


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(replica: Replica, count: int, *, distinct: bool) -> tuple[list[Presented], float]:
    """Fill the replica; return some of the keys and the seconds spent on decoding and applying."""
    decoder = msgspec.msgpack.Decoder(tuple[KeyRecord, ...])
    wanted = set(random.Random(7).sample(range(count), min(SAMPLE, count)))
    sample: list[Presented] = []
    spent = 0.0
    for start in range(0, count, CHUNK):
        records = []
        for number in range(start, min(start + CHUNK, count)):
            record, presented = make_key(number, distinct=distinct)
            records.append(record)
            if number in wanted:
                sample.append(presented)
        packed = msgspec.msgpack.encode(records)
        del records
        began = perf_counter()
        for record in decoder.decode(packed):
            replica.apply_key(record, record.id)
        spent += perf_counter() - began
    return sample, spent


def timed(kinds: dict[str, list[Callable[[], Any]]], passes: int) -> dict[str, list[list[int]]]:
    """Time every call by itself, in random order, pass by pass; the kinds take turns, so noise meets all alike."""
    order = random.Random(11)
    found: dict[str, list[list[int]]] = {kind: [] for kind in kinds}
    for _ in range(passes):
        for kind, calls in kinds.items():
            order.shuffle(calls)
            one = []
            for call in calls:
                began = perf_counter_ns()
                call()
                one.append(perf_counter_ns() - began)
            found[kind].append(one)
    return found


def microseconds(passes: list[list[int]], clock_ns: float) -> dict[str, float]:
    """Return median, p99 and the quietest pass, without the cost of the clock."""
    ordered = sorted(itertools.chain.from_iterable(passes))
    picked = {
        "median_us": statistics.median(ordered),
        "p99_us": ordered[int(len(ordered) * 0.99)],
        "quiet_us": min(statistics.median(one) for one in passes),
    }
    return {name: round((value - clock_ns) / 1000, 2) for name, value in picked.items()}


def measure(count: int, *, distinct: bool) -> dict[str, Any]:
    """Run one row in this process."""
    replica = Replica()
    replica.load_keyspace(KEYSPACE)
    load(Replica(), 0, distinct=distinct)
    gc.collect()
    before = resident_mb()
    sample, seconds = load(replica, count, distinct=distinct)
    gc.collect()
    after = resident_mb()
    gc.freeze()

    freshness = Freshness()
    freshness.loaded("log_bench", 1)
    freshness.confirmed(freshness.sending(100.0), "log_bench", 1, 60.0)
    workspaces = frozenset({"ws_bench"})

    def allowed(keyspace: KeyspacePolicy) -> bool:
        return keyspace.workspace in workspaces

    def decide(presented: Presented) -> Callable[[], Any]:
        key, scopes, ip = presented
        request = Request(key, scopes=scopes, ip=ip)
        assert verify(replica, request, NOW, allowed)
        return lambda: verify(replica, request, NOW, allowed)

    def whole(presented: Presented) -> Callable[[], Any]:
        key, scopes, ip = presented

        def call() -> bool:
            verdict = verify(replica, Request(key, scopes=scopes, ip=ip), NOW, allowed)
            version = verdict.version
            return version is not None and freshness.fresh(110.0, version.keyspace.stale_after_seconds)

        def both() -> bool:
            return freshness.fresh(110.0, 60.0) and call()

        assert both()
        return both

    limiter = LocalLimiter()

    def limited(presented: Presented) -> Callable[[], Any]:
        key, scopes, ip = presented

        def call() -> bool:
            request = Request(key, scopes=scopes, ip=ip)
            verdict = verify(replica, request, NOW, allowed)
            if not isinstance(verdict, Allowed):
                return False
            admission = admit(request, verdict, NOW, limiter, None)
            return admission is not None and bool(admission.verdict)

        return call

    def floor(presented: Presented) -> Callable[[], Any]:
        key = presented[0]
        return lambda: (version_id_of(key), digest(PEPPER, sha256(key)))

    kinds = {
        "clock": [lambda: None] * len(sample),
        "floor": [floor(presented) for presented in sample],
        "decide": [decide(presented) for presented in sample],
        "whole": [whole(presented) for presented in sample],
    }
    passes = timed(kinds, PASSES)
    replica.load_keyspace(LIMITED)
    replica.load_plan(PLAN)
    calls = [limited(presented) for presented in sample]
    assert all(call() for call in calls)
    passes |= timed({"limited": calls}, PASSES)
    clock = statistics.median(itertools.chain.from_iterable(passes.pop("clock")))
    return {
        "keys": count,
        "kind": "distinct" if distinct else "shared",
        "load_seconds": round(seconds, 2),
        "resident_mb": round(after - before, 1),
        "process_mb": round(after, 1),
        **{kind: microseconds(found, clock) for kind, found in passes.items()},
        "calls": PASSES * len(sample),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    print("us: median / p99 / quiet")
    names = ("floor", "decide", "limited", "whole")
    heads = "".join(f"{name:>24}" for name in names)
    print(f"{'keys':>9} {'kind':<9}{heads}{'load s':>9}{'grew MB':>10}{'process MB':>12}")
    for row in rows:
        times = "".join("{median_us:>9} /{p99_us:>6} /{quiet_us:>6}".format(**row[name]) for name in names)
        memory = f"{row['load_seconds']:>9.2f}{row['resident_mb']:>10.1f}{row['process_mb']:>12.1f}"
        print(f"{row['keys']:>9} {row['kind']:<9}{times}{memory}")
    print(f"targets: decide and limited <= {TARGET_US} us median, a process <= {TARGET_MB} MB at 1000000 keys")


def main() -> None:
    """Measure every row in a child of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--child", choices=["shared", "distinct"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(measure(given.keys[0], distinct=given.child == "distinct")))
        return
    rows = []
    for count in given.keys:
        for kind in ("shared", "distinct"):
            command = [sys.executable, __file__, "--keys", str(count), "--child", kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout))
    show(rows)
    result = {"benchmark": "verify_inprocess", "python": sys.version.split()[0], "rows": rows}
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
