from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from keyturn.errors import GoneError
from keyturn.storage import nodes, retention
from keyturn.storage.change_log import RETENTION_SECONDS, oldest, read_changes
from keyturn.storage.database import Database
from keyturn.storage.retention import Retained, run_retention
from keyturn.storage.schema import audit_leaf, change, idempotency, leak_scan, node
from keyturn.storage.transaction import Transaction
from tests.storage.ledger import leaves, write_fact


async def age_changes(database: Database, upto: int, seconds: float) -> None:
    await database.write(
        lambda t: t.connection.execute(update(change).where(change.c.seq <= upto).values(at=t.now - seconds))
    )


def record(name: str, age: float, response: bytes | None) -> Any:
    def work(transaction: Transaction) -> None:
        values = {"id": name, "body_hash": b"h", "entity": "key_1", "response": response}
        transaction.connection.execute(insert(idempotency).values(created_at=transaction.now - age, **values))

    return work


async def test_changes_past_seven_days_go_and_their_leaves_stay(database: Database) -> None:
    for name in "abcd":
        await database.write(write_fact(name))
    await age_changes(database, 2, RETENTION_SECONDS + 60)

    assert (await run_retention(database, "n1")).changes == 2
    assert await database.read(oldest) == 3
    assert await database.read(leaves) == {1: "a", 2: "b", 3: "c", 4: "d"}
    with pytest.raises(GoneError):
        await database.read(lambda c: read_changes(c, 1))
    assert [one.seq for one in await database.read(lambda c: read_changes(c, 2))] == [3, 4]


async def test_what_is_left_has_no_gap_though_clocks_differ(database: Database) -> None:
    """A node with a slow clock stamps a late row as old; rows are dropped from the front only."""
    for name in "abcd":
        await database.write(write_fact(name))
    await age_changes(database, 3, RETENTION_SECONDS + 60)
    await database.write(lambda t: t.connection.execute(update(change).where(change.c.seq == 2).values(at=t.now)))

    assert (await run_retention(database, "n1")).changes == 1
    assert [one.seq for one in await database.read(lambda c: read_changes(c, 1))] == [2, 3, 4]


async def test_all_changes_may_go_and_the_number_runs_on(database: Database) -> None:
    await database.write(write_fact("a"))
    await age_changes(database, 1, RETENTION_SECONDS + 60)
    await run_retention(database, "n1")
    committed = await database.write(write_fact("b"))

    assert committed.seq == 2
    with pytest.raises(GoneError):
        await database.read(lambda c: read_changes(c, 0))


async def test_secrets_in_responses_go_after_ten_minutes_and_records_after_seven_days(database: Database) -> None:
    """The sealed response holds a key in full; it must not lie around."""
    await database.write(record("new", 60, b"sealed"))
    await database.write(record("old", 700, b"sealed"))
    await database.write(record("ancient", 8 * 86400, b"sealed"))
    done = await run_retention(database, "n1")

    def look(connection: Connection) -> dict[str, bytes | None]:
        rows = connection.execute(select(idempotency.c.id, idempotency.c.response)).all()
        return {row.id: row.response for row in rows}

    assert (done.responses, done.records) == (2, 1)
    assert await database.read(look) == {"new": b"sealed", "old": None}


async def test_dead_nodes_go(database: Database) -> None:
    await database.write(lambda t: nodes.register(t.connection, "dead", "sdk", "dead", t.now))
    await database.write(lambda t: t.connection.execute(update(node).values(confirmed_at=t.now - 90000)))

    assert (await run_retention(database, "n1")).nodes == 1


async def test_only_the_elected_worker_does_it(database: Database) -> None:
    await database.write(write_fact("a"))
    await age_changes(database, 1, RETENTION_SECONDS + 60)

    assert (await run_retention(database, "n1")) == Retained(elected=True, changes=1)
    assert (await run_retention(database, "n2")) == Retained(elected=False)
    assert (await run_retention(database, "n1")) == Retained(elected=True)


async def test_many_rows_go_in_several_units(database: Database) -> None:
    total = retention.UNIT_ROWS + 10

    def work(transaction: Transaction) -> None:
        rows = [
            {"id": f"r{n}", "body_hash": b"", "entity": "", "response": b"x", "created_at": 0.0} for n in range(total)
        ]
        transaction.connection.execute(insert(idempotency), rows)

    await database.write(work)
    done = await run_retention(database, "n1")

    assert (done.responses, done.records) == (total, total)


async def test_leaf_is_never_removed(database: Database) -> None:
    await database.write(write_fact("a"))
    await database.write(lambda t: t.connection.execute(update(audit_leaf).values(at=0.0)))
    await run_retention(database, "n1")

    assert await database.read(leaves) == {1: "a"}


async def test_old_reports_of_scans_go_but_the_last_of_each_source(database: Database) -> None:
    """Whether a source has fallen silent is told by its last report, however old."""
    long_ago = retention.LEAK_SCAN_SECONDS + 60
    ages = {"s1": ("a", long_ago + 1), "s2": ("a", long_ago), "s3": ("a", 60), "s4": ("b", long_ago)}

    def work(transaction: Transaction) -> None:
        for name, (source, age) in ages.items():
            values = {"id": name, "workspace": "w", "source": source, "kind": "watch", "principal": "p"}
            times = {"started_at": 0.0, "reported_at": transaction.now - age, "summary_json": "{}"}
            transaction.connection.execute(insert(leak_scan).values(**values, **times))

    await database.write(work)
    assert (await run_retention(database, "n1")).leak_scans == 2
    left = await database.read(lambda c: c.execute(select(leak_scan.c.id).order_by(leak_scan.c.id)).scalars().all())
    assert left == ["s3", "s4"]
