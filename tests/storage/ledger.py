"""A unit of work for tests: it writes a fact, and leaves an entry with a leaf about it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from keyturn.kernel.ids import new_id
from keyturn.storage.change_log import Change, read_changes
from keyturn.storage.database import Database, Job, run_batch
from keyturn.storage.schema import audit_leaf, fact
from keyturn.storage.transaction import ChangeKind, Entry, LeafRow, Transaction


def leaf(name: str) -> LeafRow:
    return LeafRow(
        new_id("evt", 0.0), 0.0, "key.issue", "allowed", "prn_1", f"key/{name}", f'{{"n":"{name}"}}'.encode()
    )


def entry(name: str, *, with_leaf: bool = True, awaited: bool = False) -> Entry:
    return Entry("wsp_1", ChangeKind.KEY, name, leaf(name) if with_leaf else None, awaited=awaited)


def write_fact(name: str, *, awaited: bool = False) -> Callable[[Transaction], str]:
    """A unit that keeps state, a leaf and a change row together."""

    def work(transaction: Transaction) -> str:
        transaction.connection.execute(insert(fact).values(name=name, value="kept"))
        transaction.append(entry(name, awaited=awaited))
        return name

    return work


def facts(connection: Connection) -> set[str]:
    return {row.name for row in connection.execute(select(fact.c.name)).all()}


def changes(connection: Connection) -> list[Change]:
    return read_changes(connection, 0)


def leaves(connection: Connection) -> dict[int, str]:
    """The entity of each leaf by its number."""
    rows = connection.execute(select(audit_leaf.c.seq, audit_leaf.c.resource).order_by(audit_leaf.c.seq)).all()
    return {row.seq: row.resource.removeprefix("key/") for row in rows}


async def together(database: Database, monkeypatch: pytest.MonkeyPatch, *writes: Awaitable[Any]) -> list[Any]:
    """Run writes as units of one transaction, in order; return what each returned or raised."""
    held: list[Job] = []
    complete = asyncio.Event()

    def hold(job: Job) -> Job:
        held.append(job)
        if len(held) == len(writes):
            complete.set()
        return job

    with monkeypatch.context() as patched:
        patched.setattr(database, "_submit", hold)
        running = [asyncio.ensure_future(one) for one in writes]
        await complete.wait()
    batch = await database.maintain(lambda connection: run_batch(connection, held, database.clock.now()))
    batch.answer()
    return await asyncio.gather(*running, return_exceptions=True)
