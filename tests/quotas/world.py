"""Nodes, a database that loses answers, and time that jumps: what the keeper of balances has to live with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from keyturn.errors import StorageError
from keyturn.quotas.inspection import discrepancies
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.storage.change_log import start_log
from keyturn.storage.database import Database
from keyturn.storage.schema import metadata
from keyturn.storage.transaction import Committed, Transaction
from keyturn.testing.clock import START, ManualBoottime, ManualClock
from keyturn.verify.spending import QuotaDemand, Reservation
from keyturn.wire.policy import QuotaRule

T = TypeVar("T")
WORKSPACE = "wsp_1"
MONTHLY = QuotaRule("monthly", 100)


class FakeDatabase:
    """One SQLite database in memory whose clock the test sets; it can be away, or lose an answer after the commit."""

    def __init__(self, elapsed: ManualBoottime) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        metadata.create_all(self.engine)
        self.clock = ManualClock(START, elapsed=elapsed)
        self.away = False
        self.lose_answers = False
        self.units = 0
        self.announced: list[str] = []
        self.maintain(lambda connection: start_log(connection, START))

    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        await asyncio.sleep(0)
        if self.away:
            raise StorageError("the database is away")
        self.units += 1
        with self.engine.begin() as connection:
            transaction = Transaction(connection, self.clock.now())
            value = work(transaction)
            self.announced += [entry.entity for entry in transaction.entries]
        if self.lose_answers:
            raise StorageError("no answer came", code="storage_unknown")
        return Committed(value, "", 0)

    def maintain(self, work: Callable[[Connection], T]) -> T:
        with self.engine.begin() as connection:
            return work(connection)

    def discrepancies(self) -> list[str]:
        return self.maintain(discrepancies)


class World:
    """Some nodes on one database."""

    def __init__(self, folder: Path) -> None:
        self.elapsed = ManualBoottime()
        self.database = FakeDatabase(self.elapsed)
        self.folder = folder
        self.made = 0

    async def node(self, folder: str = "a") -> QuotaKeeper:
        """Start another node; the same folder is another process on the same machine."""
        self.made += 1
        clock = ManualClock(self.database.clock.now(), elapsed=self.elapsed)
        keeper = QuotaKeeper(cast("Database", self.database), clock, f"nod_{self.made}", self.folder / folder)
        await keeper.open()
        return keeper

    def now(self) -> float:
        return self.database.clock.now()


def kill(keeper: QuotaKeeper) -> None:
    """End a node as `kill -9` does: its memory is gone, its file stays and is not locked any more."""
    keeper.abandon()


def demand(rule: QuotaRule = MONTHLY, cost: int = 1, subject: str = "key/key_1") -> QuotaDemand:
    return QuotaDemand(rule, WORKSPACE, subject, cost)


async def spend(keeper: QuotaKeeper, now: float, *demands: QuotaDemand) -> Reservation:
    """Reserve as verify does: from memory, and if that does not do, with an exchange."""
    asked = demands or (demand(),)
    found = keeper.reserve_now(asked, now)
    return found if found is not None else await keeper.reserve(asked, now)
