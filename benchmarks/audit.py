"""The audit log: how fast leaves are appended, built into the tree, and verified offline.

    python -m benchmarks.audit [--short] [--json FILE]

    append   leaves per second through `Database.write`, one leaf a unit of work, by 1, 8 and 64 writers at once;
             every unit returns after its commit is durable, and those that wait together share one
    build    leaves per second from log to signed tree, after the fact
    verify   leaves per second by `verify_export` over a finished export: every leaf decoded and hashed again, every
             root computed, every signature checked; one checkpoint for each 1024 leaves, and one for each leaf

Both databases are on this machine's disk with their own durability (`synchronous=FULL`, `fsync=on`).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.report import arguments, finish
from keyturn.audit import checkpoint, export_lines
from keyturn.audit.builder import Builder
from keyturn.audit.export import Export
from keyturn.audit.leaf import Actor, Leaf
from keyturn.audit.verification import verify_export
from keyturn.kernel import envelope, merkle
from keyturn.kernel.clock import Clock
from keyturn.kernel.note import encode_verifier_key, new_signing_key, public_key
from keyturn.kernel.secret import Secret
from keyturn.storage.engine import make_database
from keyturn.storage.kek_held import HeldKeks
from keyturn.storage.keyring import Keyring
from keyturn.storage.migrate import migrate_async
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.testing.postgres import PostgresServer

if TYPE_CHECKING:
    import argparse

    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

WORKSPACE = "wsp_0VPfh4Qa7mKx2LwZ9Yb3Rt"
WRITERS = (1, 8, 64)
SEGMENT = 1024


def leaf_at(at: float, number: int) -> Leaf:
    """Return a leaf like that of an issued key."""
    return Leaf(
        workspace=WORKSPACE,
        action="key.issue",
        outcome="allowed",
        actor=Actor("prn_0VPfh4Qa7mKx2LwZ9Yb3Rt", "service", "billing", "Yb3RtZ9LwKx2"),
        resource=f"key/orders/key_{number:022}",
        at=at,
        detail={"owner": "team-payments", "purpose": "checkout", "version": "0VPfh4Qa7mKx"},
        request_id="req_0VPfh4Qa7mKx2LwZ9Yb3Rt",
        ip="203.0.113.7",
    )


async def append(database: Database, writers: int, seconds: float) -> float:
    """Return leaves per second of so many writers, each waiting for its commit before the next."""
    count = 0
    ends = perf_counter() + seconds

    def unit(transaction: Transaction) -> None:
        transaction.append(Entry(WORKSPACE, ChangeKind.KEY, "key", leaf_at(transaction.now, count).row()))

    async def writer() -> None:
        nonlocal count
        while perf_counter() < ends:
            await database.write(unit)
            count += 1

    began = perf_counter()
    await asyncio.gather(*(writer() for _ in range(writers)))
    return count / (perf_counter() - began)


async def build(database: Database) -> tuple[int, float, int]:
    """Build the tree of everything appended; return leaves, leaves per second, and the lines of an export."""
    keyring = Keyring(HeldKeks(("kek_bench", Secret(envelope.new_key()))))
    builder = Builder(database, keyring, "nod_bench")
    began = perf_counter()
    built = await builder.build_once()
    spent = perf_counter() - began
    export = await database.read(lambda c: Export.begin(c, WORKSPACE, new_signing_key(), 0))
    exported = 0
    while page := await database.read(export.page):
        exported += page.count(b'{"index"')
    return built, built / spent, exported


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open a new database."""
    await migrate_async(url)
    database = make_database(url, Clock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def database_rows(url: Callable[[], str], seconds: float) -> dict[str, Any]:
    """Measure one engine; each number of writers gets a database of its own."""
    rows: dict[str, Any] = {"append": {}, "build": 0.0}
    for writers in WRITERS:
        async with opened(url()) as database:
            rows["append"][str(writers)] = round(await append(database, writers, seconds))
            if writers == max(WRITERS):
                built, rate, exported = await build(database)
                assert built == exported > 0
                rows["build"] = round(rate)
                rows["built"] = built
    return rows


def export_of(leaves: int, segment: int) -> tuple[list[bytes], str]:
    """Make an export with a checkpoint for each `segment` leaves."""
    key = new_signing_key()
    verifier = encode_verifier_key(checkpoint.origin_of(WORKSPACE), public_key(key))
    tree = merkle.Frontier()
    lines: list[bytes] = []
    for index in range(leaves):
        row = leaf_at(1_767_225_600.0, index).row()
        hashed = merkle.leaf_hash(row.body)
        tree.append(hashed)
        line = export_lines.leaf(index, hashed, seq=index + 1, leaf_id=row.id, content=row.body, columns_differ=False)
        lines.append(export_lines.encode(line))
        if (index + 1) % segment == 0 or index + 1 == leaves:
            number = -(-(index + 1) // segment)
            note = checkpoint.sign(WORKSPACE, index + 1, tree.root(), number, key)
            lines.append(export_lines.encode(export_lines.Line(checkpoint=note)))
    header = export_lines.header(WORKSPACE, verifier, 0, leaves, merkle.Frontier())
    return [export_lines.encode(header), *lines, export_lines.encode(export_lines.Line(end=True))], verifier


def verify_rate(leaves: int, segment: int) -> float:
    """Return leaves per second, the best of three passes."""
    lines, key = export_of(leaves, segment)
    best = 0.0
    for _ in range(3):
        began = perf_counter()
        report = verify_export(lines, key)
        best = max(best, leaves / (perf_counter() - began))
        assert report.ok
        assert report.size == leaves
    return best


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run everything."""
    seconds = 1.0 if given.short else 5.0
    leaves = 20_000 if given.short else 200_000
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-", dir=Path.cwd()) as folder:
        names = iter(range(100))
        result["sqlite"] = asyncio.run(
            database_rows(lambda: f"sqlite:///{Path(folder) / f'{next(names)}.db'}", seconds)
        )
    with PostgresServer.start() as server:
        result["postgresql"] = asyncio.run(database_rows(server.create_database, seconds))
    result["verify"] = {
        "leaves": leaves,
        "segments_of_1024": round(verify_rate(leaves, SEGMENT)),
        "segments_of_1": round(verify_rate(leaves // 10, 1)),
    }
    return result


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    print("audit append, leaves/s           " + "".join(f"{writers:>8}" for writers in WRITERS) + "  writers")
    for engine in ("sqlite", "postgresql"):
        row = result[engine]
        print(f"  {engine:<31}" + "".join(f"{row['append'][str(writers)]:>8}" for writers in WRITERS))
    for engine in ("sqlite", "postgresql"):
        print(f"audit build, {engine:<20}{result[engine]['build']:>8} leaves/s")
    print(f"audit verify, 1024 a checkpoint  {result['verify']['segments_of_1024']:>8} leaves/s")
    print(f"audit verify, 1 a checkpoint     {result['verify']['segments_of_1']:>8} leaves/s")


def main() -> dict[str, Any]:
    """Measure, print and return."""
    given = arguments(__doc__)
    return finish("audit", measure(given), show, given)


if __name__ == "__main__":
    main()
