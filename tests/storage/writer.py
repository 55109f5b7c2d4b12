"""A writer process for `test_order`: transactions with random pauses, also between numbering and COMMIT.

    python writer.py <database url> <name> <transactions> <seed>

It uses the last step directly, without the queue and the writers' lock of `Database`, so that only what the change
log itself promises is at work.
"""

import asyncio
import random
import sys
import time
from pathlib import Path

from sqlalchemy import Connection, insert

from keyturn.storage.change_log import append
from keyturn.storage.engine import locate
from keyturn.storage.postgresql import postgresql_engine
from keyturn.storage.schema import fact
from keyturn.storage.sqlite import sqlite_engine
from keyturn.storage.transaction import ChangeKind, Entry


def write_state(connection: Connection, name: str) -> None:
    connection.execute(insert(fact).values(name=name, value=""))


def number(connection: Connection, name: str, entries: int) -> None:
    append(connection, [Entry("wsp_1", ChangeKind.KEY, f"{name}.{part}") for part in range(entries)], 0.0)


async def write_postgresql(url: str, name: str, transactions: int, draw: random.Random) -> None:
    engine = postgresql_engine(url, pool_size=1)
    for count in range(transactions):
        async with engine.connect() as connection, connection.begin() as transaction:
            await connection.run_sync(write_state, f"{name}/{count}")
            await asyncio.sleep(draw.random() * 0.004)
            await connection.run_sync(number, f"{name}/{count}", draw.randint(1, 3))
            await asyncio.sleep(draw.random() * 0.004)
            if draw.random() < 0.1:
                await transaction.rollback()
    await engine.dispose()


def write_sqlite(path: Path, name: str, transactions: int, draw: random.Random) -> None:
    engine = sqlite_engine(path, writer=True, busy_seconds=30)
    for count in range(transactions):
        with engine.connect() as connection, connection.begin() as transaction:
            write_state(connection, f"{name}/{count}")
            time.sleep(draw.random() * 0.002)
            number(connection, f"{name}/{count}", draw.randint(1, 3))
            time.sleep(draw.random() * 0.002)
            if draw.random() < 0.1:
                transaction.rollback()
    engine.dispose()


def main() -> None:
    url, name, transactions, seed = sys.argv[1:]
    place = locate(url)
    draw = random.Random(int(seed))
    if isinstance(place, Path):
        write_sqlite(place, name, int(transactions), draw)
    else:
        asyncio.run(write_postgresql(place, name, int(transactions), draw))


if __name__ == "__main__":
    main()
