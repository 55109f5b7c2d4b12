"""The promise everything rests on: no interleaving of writers lets a follower skip a row (design, the spine)."""

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from keyturn.kernel.clock import Clock
from keyturn.storage.change_log import Change, append
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.follower import Follower
from keyturn.storage.postgresql import postgresql_engine
from keyturn.storage.transaction import ChangeKind, Entry
from tests.storage.ledger import changes, entry

WRITER = Path(__file__).with_name("writer.py")
STEPS = ("begin", "write", "append", "commit")
Number = Callable[[Connection, str], None]
INTERLEAVINGS = sorted(set(itertools.permutations("AAAABBBB")))


@dataclass
class Record:
    """A consumer that keeps every change it was given, in order."""

    seen: list[Change] = field(default_factory=list)

    def load(self, _connection: Connection) -> Callable[[], None]:
        return lambda: None

    def refresh(self, _connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:
        return lambda: self.seen.extend(changes)


async def follow(follower: Follower, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await follower.tick()
        await asyncio.sleep(0.003)
    await follower.tick()


async def test_followers_see_every_row_in_order_while_processes_write(database: Database, migrated_url: str) -> None:
    """Writer processes pause at random between their statements and before COMMIT; followers read all the time."""
    records = [Record() for _ in range(3)]
    followers = [Follower(database, [record], []) for record in records]
    for follower in followers:
        await follower.load()
    stop = asyncio.Event()
    following = [asyncio.create_task(follow(follower, stop)) for follower in followers]

    writers = [
        await asyncio.create_subprocess_exec(sys.executable, str(WRITER), migrated_url, f"w{n}", "25", str(n))
        for n in range(4)
    ]
    assert [await writer.wait() for writer in writers] == [0] * 4
    stop.set()
    await asyncio.gather(*following)

    kept = await database.read(changes)
    assert len(kept) > 120
    assert [change.seq for change in kept] == list(range(1, len(kept) + 1))
    for record in records:
        assert record.seen == kept


async def test_followers_see_every_row_in_order_while_nodes_write(migrated_url: str) -> None:
    nodes = [make_database(migrated_url, Clock()) for _ in range(1 if migrated_url.startswith("sqlite") else 3)]
    for node in nodes:
        await node.open()
    record = Record()
    follower = Follower(nodes[0], [record], [])
    await follower.load()
    stop = asyncio.Event()
    following = asyncio.create_task(follow(follower, stop))

    async def write(node: Database, name: str) -> None:
        for count in range(30):
            await node.write(lambda t, count=count: t.append(entry(f"{name}.{count}")))  # type: ignore[misc]

    await asyncio.gather(*(write(node, f"{n}.{m}") for n, node in enumerate(nodes) for m in range(4)))
    stop.set()
    await following

    kept = await nodes[0].read(changes)
    assert len(kept) == 120 * len(nodes)
    assert record.seen == kept
    for node in nodes:
        await node.close()


class Stepper:
    """One connection that does begin, write, append and commit when told, and can be seen to wait for a lock."""

    def __init__(
        self, name: str, connection: AsyncConnection, pid: int, number: Callable[[Connection, str], None]
    ) -> None:
        self.name = name
        self.connection = connection
        self.pid = pid
        self.number = number
        self.steps = iter(STEPS)
        self.running: asyncio.Task[None] | None = None

    @property
    def blocked(self) -> bool:
        return self.running is not None and not self.running.done()

    def begin_step(self) -> None:
        self.running = asyncio.create_task(self._step(next(self.steps)))

    async def _step(self, step: str) -> None:
        name = self.name
        if step == "begin":
            await self.connection.begin()
            await self.connection.execute(text("SELECT 1"))
        elif step == "write":
            await self.connection.execute(text("INSERT INTO fact (name, value) VALUES (:name, '')"), {"name": name})
        elif step == "append":
            await self.connection.run_sync(lambda connection: self.number(connection, name))
        else:
            await self.connection.commit()


class Stage:
    """Two steppers, and a follower that looks after every step."""

    def __init__(self, engine: AsyncEngine, look: Callable[[], Awaitable[None]]) -> None:
        self.engine = engine
        self.look = look

    async def play(self, order: Sequence[str], number: Number) -> bool:
        """Play the order; False when it cannot happen, because a connection waits for the other one's COMMIT."""
        async with self.engine.connect() as first, self.engine.connect() as second, self.engine.connect() as watch:
            steppers = {}
            for name, connection in (("A", first), ("B", second)):
                pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
                await connection.commit()
                steppers[name] = Stepper(name, connection, pid, number)
            possible = True
            for name in order:
                stepper = steppers[name]
                if stepper.blocked:
                    possible = False
                    break
                stepper.begin_step()
                for each in steppers.values():
                    await self._settle(each, watch)
                await self.look()
            if not possible:
                for stepper in sorted(steppers.values(), key=lambda each: each.blocked):
                    if stepper.running is not None and not stepper.blocked:
                        await stepper.connection.rollback()
                for stepper in steppers.values():
                    if stepper.running is not None:
                        await stepper.running
                        await stepper.connection.rollback()
            return possible

    async def _settle(self, stepper: Stepper, watch: AsyncConnection) -> None:
        """Wait until the step is done, or PostgreSQL says that it waits for a lock."""
        query = text("SELECT wait_event_type FROM pg_stat_activity WHERE pid = :pid")
        while stepper.blocked:
            found = (await watch.execute(query, {"pid": stepper.pid})).scalar_one_or_none()
            await watch.commit()
            if found == "Lock":
                return
            await asyncio.sleep(0.001)
        if stepper.running is not None:
            stepper.running.result()


@pytest.mark.postgres
async def test_every_interleaving_of_two_writers_shows_every_row_in_order(migrated_postgres_url: str) -> None:
    """All 70 orders in which two connections can begin, write, append and commit; a follower looks after each step."""
    database = make_database(migrated_postgres_url, Clock())
    await database.open()
    engine = postgresql_engine(migrated_postgres_url, pool_size=3)
    record = Record()
    follower = Follower(database, [record], [])
    await follower.load()

    async def look() -> None:
        await follower.tick()
        assert [change.seq for change in record.seen] == list(range(1, len(record.seen) + 1))
        assert record.seen == await database.read(changes)

    def number(connection: Connection, name: str) -> None:
        append(connection, [Entry("wsp_1", ChangeKind.KEY, name)], 0.0)

    stage = Stage(engine, look)
    played = 0
    for order in INTERLEAVINGS:
        before = len(record.seen)
        if await stage.play(order, number):
            played += 1
            assert {change.entity for change in record.seen[before:]} == {"A", "B"}, order
        await look()
        await database.write(lambda t: t.connection.execute(text("DELETE FROM fact")))
    await engine.dispose()
    await database.close()

    assert len(INTERLEAVINGS) == 70
    # In the other 20 a connection would have to commit while its append waits for the other one's COMMIT.
    assert played == 50


@pytest.mark.postgres
async def test_number_from_a_sequence_would_be_skipped(migrated_postgres_url: str) -> None:
    """The control: with a database sequence as the cursor, the same steps lose a row, so the test above can fail."""
    engine = postgresql_engine(migrated_postgres_url, pool_size=4)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE scratch (seq bigserial PRIMARY KEY, entity text)"))
    last = 0
    seen: list[int] = []

    async def look() -> None:
        nonlocal last
        async with engine.connect() as connection:
            query = text("SELECT seq FROM scratch WHERE seq > :last ORDER BY seq")
            found = (await connection.execute(query, {"last": last})).scalars().all()
        seen.extend(found)
        last = max([last, *found])

    def number(connection: Connection, name: str) -> None:
        connection.execute(text("INSERT INTO scratch (entity) VALUES (:name)"), {"name": name})

    stage = Stage(engine, look)
    skipped = 0
    for order in INTERLEAVINGS:
        before = len(seen)
        assert await stage.play(order, number)
        skipped += len(seen) - before < 2
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM fact"))
    await engine.dispose()

    assert skipped > 0
