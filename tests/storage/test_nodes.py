"""The registry and *confirm*: who may admit keys, and what a revocation may conclude from it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import update

from keyturn.errors import StorageError
from keyturn.kernel.clock import Clock
from keyturn.storage import nodes
from keyturn.storage.change_log import read_head, start_log
from keyturn.storage.confirmer import Confirmer
from keyturn.storage.database import Database
from keyturn.storage.effect import await_effect
from keyturn.storage.follower import Follower
from keyturn.storage.migrate import migrate_async
from keyturn.storage.nodes import Confirmation, Node
from keyturn.storage.postgresql import PostgresqlDatabase, connect_driver
from keyturn.storage.schema import node
from keyturn.testing.postgres import PostgresServer
from keyturn.testing.waiting import until_async
from keyturn.verify.freshness import Freshness, Sent
from tests.storage.ledger import write_fact


async def register(database: Database, name: str) -> None:
    await database.write(lambda t: nodes.register(t.connection, name, "server", f"label {name}", t.now))


async def confirm(database: Database, name: str, log_id: str, applied: int) -> Confirmation:
    def work() -> Confirmation:
        try:
            return database.confirm(name, log_id, applied)
        finally:
            database.close_confirm()

    return await asyncio.to_thread(work)


def registered(name: str, *, applied: int = 0, log_id: str = "log_a", confirmed_at: float = 100.0) -> Node:
    return Node(name, "server", name, log_id, applied, 0.0, confirmed_at)


async def test_confirm_stores_the_position_and_returns_head_and_time(database: Database) -> None:
    await register(database, "n1")
    await database.write(write_fact("a"))
    head = await database.head()
    answer = await confirm(database, "n1", head.log_id, 1)
    [row] = await database.read(nodes.all_nodes)

    assert answer == Confirmation(True, head.log_id, 1, answer.database_time, head.log_id, 1)
    assert (row.id, row.label, row.log_id, row.applied) == ("n1", "label n1", head.log_id, 1)
    assert row.registered_at <= row.confirmed_at <= answer.database_time
    assert abs(answer.database_time - database.clock.now()) < 60


async def test_confirm_of_a_node_that_is_not_registered_says_so(database: Database) -> None:
    assert not (await confirm(database, "unknown", "log_x", 1)).known
    assert await database.read(nodes.all_nodes) == []


async def test_node_that_left_is_known_no_more(database: Database) -> None:
    await register(database, "n1")
    await database.write(lambda t: nodes.deregister(t.connection, "n1"))

    assert not (await confirm(database, "n1", "log_x", 1)).known


async def test_registered_node_counts_as_behind_until_it_confirms(database: Database) -> None:
    """A node registers before it loads, so a revocation meanwhile waits for it."""
    await register(database, "n1")
    await database.write(write_fact("a"))
    head = await database.head()
    found = await database.read(nodes.all_nodes)

    assert [n.id for n in nodes.laggards(found, found[0].confirmed_at, 60, head.log_id, 1)] == ["n1"]


async def test_new_server_on_a_file_takes_the_place_of_the_one_before(database: Database) -> None:
    """A file has one server process; one that was killed must not delay revocations for its whole staleness bound."""
    await register(database, "killed")
    await database.write(lambda t: nodes.register(t.connection, "sdk", "sdk", "sdk", t.now))
    await register(database, "new")

    found = {n.id for n in await database.read(nodes.all_nodes)}
    assert found == ({"new", "sdk"} if database.dialect == "sqlite" else {"killed", "new", "sdk"})


def test_live_is_who_could_still_admit() -> None:
    at_the_edge = registered("edge", confirmed_at=100.0)
    bound = 10.0
    end = 100.0 + bound + nodes.MARGIN_SECONDS

    assert nodes.live([at_the_edge], end - 0.001, bound) == [at_the_edge]
    assert nodes.live([at_the_edge], end, bound) == []


@pytest.mark.parametrize(
    ("one", "lags"),
    [
        (registered("applied", applied=5), False),
        (registered("further", applied=6), False),
        (registered("behind", applied=4), True),
        (registered("other log", applied=9, log_id="log_b"), True),
        (registered("loading", applied=-1, log_id=""), True),
        (registered("dead", applied=-1, confirmed_at=1.0), False),
    ],
    ids=lambda value: value.id if isinstance(value, Node) else "",
)
def test_laggard_is_live_and_not_known_to_have_applied(one: Node, lags: bool) -> None:  # noqa: FBT001
    assert bool(nodes.laggards([one], 101.0, 10.0, "log_a", 5)) is lags


async def test_dead_nodes_are_forgotten_after_a_day(database: Database) -> None:
    await database.write(lambda t: nodes.register(t.connection, "dead", "sdk", "dead", t.now))
    await database.write(lambda t: nodes.register(t.connection, "alive", "sdk", "alive", t.now))
    await database.write(
        lambda t: t.connection.execute(
            update(node).where(node.c.id == "dead").values(confirmed_at=t.now - nodes.FORGET_SECONDS - 60)
        )
    )
    gone = await database.write(lambda t: nodes.forget_dead(t.connection, t.now))

    assert gone.value == 1
    assert [n.id for n in await database.read(nodes.all_nodes)] == ["alive"]


async def test_database_time_is_the_databases_own(database: Database) -> None:
    """On PostgreSQL a node whose clock is wrong registers and confirms in the server's time all the same."""
    if database.dialect == "sqlite":
        pytest.skip("the one server is the database's clock")
    here = time.time()
    await database.write(lambda t: nodes.register(t.connection, "n1", "server", "n1", 5.0))
    [row] = await database.read(nodes.all_nodes)

    assert abs(row.registered_at - here) < 60


# --- the confirming thread ---


@dataclass
class Told:
    """What a confirmer reports, and an event for each report."""

    confirmations: list[Confirmation] = field(default_factory=list)
    forgotten: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def confirmed(self, sent: float, received: float, confirmation: Confirmation) -> None:
        assert sent <= received
        with self.changed:
            self.confirmations.append(confirmation)
            self.changed.notify_all()

    def forget(self) -> None:
        with self.changed:
            self.forgotten += 1
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> bool:
        def wait() -> bool:
            with self.changed:
                return self.changed.wait_for(condition, seconds)

        return await asyncio.to_thread(wait)


def confirmer(database: Database, told: Told, *, every_seconds: float = 600.0) -> Confirmer:
    """A confirmer that, unless told otherwise, confirms only when it is woken."""
    return Confirmer(
        database, "n1", database.clock, confirmed=told.confirmed, forgotten=told.forget, every_seconds=every_seconds
    )


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
async def running(database: Database, told: Told) -> AsyncIterator[Confirmer]:
    await register(database, "n1")
    one = confirmer(database, told)
    one.start()
    assert await told.until(lambda: len(told.confirmations) == 1)
    yield one
    await asyncio.to_thread(one.stop)


async def test_confirms_at_once_when_another_node_waits_for_what_is_applied(
    database: Database, told: Told, running: Confirmer
) -> None:
    log_id = (await database.head()).log_id
    running.reloaded(log_id, 0)
    assert await told.until(lambda: len(told.confirmations) == 2)
    await database.write(write_fact("a", awaited=True))

    running.advanced(1, 1)
    assert await told.until(lambda: len(told.confirmations) == 3)
    [row] = await database.read(nodes.all_nodes)
    assert (row.log_id, row.applied) == (log_id, 1)


async def test_does_not_confirm_again_for_what_is_proven(database: Database, told: Told, running: Confirmer) -> None:
    log_id = (await database.head()).log_id
    running.reloaded(log_id, 0)
    assert await told.until(lambda: len(told.confirmations) == 2)
    running.advanced(3, 2)
    assert await told.until(lambda: len(told.confirmations) == 3)
    for _ in range(20):
        running.advanced(3, 2)
        running.advanced(4, 2)
    running.advanced(5, 9)  # somebody waits for more than is applied here: that is not news

    assert not await told.until(lambda: len(told.confirmations) > 3, 0.2)


async def test_position_of_another_log_is_proven_anew(database: Database, told: Told, running: Confirmer) -> None:
    """A number proven for the log before says nothing about the same number of this log."""
    running.reloaded("log_old", 10)
    assert await told.until(lambda: len(told.confirmations) == 2)
    running.lost()
    running.reloaded("log_new", 2)
    assert await told.until(lambda: len(told.confirmations) == 3)
    [row] = await database.read(nodes.all_nodes)

    assert (row.log_id, row.applied) == ("log_new", 2)


async def test_node_that_lost_its_log_claims_nothing(database: Database, told: Told, running: Confirmer) -> None:
    running.reloaded("log_old", 10)
    assert await told.until(lambda: len(told.confirmations) == 2)
    running.lost()
    running.advanced(-1, -1)
    assert await told.until(lambda: len(told.confirmations) >= 3)
    [row] = await database.read(nodes.all_nodes)

    assert (row.log_id, row.applied) == ("", -1)


async def test_forgotten_node_is_told_and_proves_nothing(database: Database, told: Told, running: Confirmer) -> None:
    await database.write(lambda t: nodes.deregister(t.connection, "n1"))
    before = len(told.confirmations)
    running.reloaded("log_x", 1)

    assert await told.until(lambda: told.forgotten == 1)
    assert len(told.confirmations) == before


async def test_failing_confirm_is_counted_and_tried_again(database: Database, told: Told) -> None:
    await register(database, "n1")
    real, failing = database.confirm, threading.Event()

    def broken(_node: str, _log_id: str, _applied: int) -> Confirmation:
        failing.set()
        raise StorageError("gone")

    database.confirm = broken  # type: ignore[method-assign,assignment]
    one = confirmer(database, told, every_seconds=0.01)
    one.start()
    assert await asyncio.to_thread(failing.wait, 10)
    database.confirm = real  # type: ignore[method-assign]

    assert await told.until(lambda: bool(told.confirmations))
    assert one.trouble.failures >= 1
    await asyncio.to_thread(one.stop)


async def test_confirm_answers_while_the_event_loop_is_busy(database: Database, told: Told) -> None:
    """A busy loop must not make a healthy node look dead."""
    await register(database, "n1")
    one = confirmer(database, told, every_seconds=0.01)
    one.start()
    before = len(told.confirmations)
    with told.changed:
        assert told.changed.wait_for(lambda: len(told.confirmations) >= before + 3, 20)  # blocks the loop
    await asyncio.to_thread(one.stop)


@pytest.mark.postgres
async def test_lost_confirm_connection_is_replaced(postgres_server: PostgresServer, postgres_url: str) -> None:
    await migrate_async(postgres_url)
    database = PostgresqlDatabase(postgres_url, Clock())
    await database.open()
    await register(database, "n1")
    told = Told()
    one = confirmer(database, told, every_seconds=0.01)
    one.start()
    assert await told.until(lambda: len(told.confirmations) >= 2)
    name = postgres_url.rpartition("/")[2]
    postgres_server.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    before = len(told.confirmations)

    assert await told.until(lambda: len(told.confirmations) > before + 2)
    assert one.trouble.failures >= 1
    await asyncio.to_thread(one.stop)
    await database.close()


# --- what a revocation may conclude ---


@pytest.mark.postgres
async def test_confirm_reads_the_head_after_its_write_is_visible(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Or a revocation in between would call itself effective while the node admits for a whole staleness bound more.

    It would neither be in that head, nor find the node live.  Here the write is held up while a revocation commits.
    """
    await migrate_async(postgres_url)
    database = PostgresqlDatabase(postgres_url, Clock())
    await database.open()
    await register(database, "n1")
    holding = await connect_driver(postgres_url)
    await holding.execute("BEGIN; SELECT 1 FROM node FOR UPDATE")
    confirming = asyncio.create_task(confirm(database, "n1", "log_a", 0))
    name = postgres_url.rpartition("/")[2]
    waits = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
    await until_async(lambda: postgres_server.query(waits) != "0")
    revoked = await database.write(write_fact("revoked"))
    await holding.execute("COMMIT")
    answer = await confirming

    assert answer.head >= revoked.seq
    await holding.close()
    await database.close()


async def test_effect_waits_for_every_live_node_and_names_the_laggards(database: Database) -> None:
    await database.write(lambda t: nodes.register(t.connection, "n1", "sdk", "fast", t.now))
    await database.write(lambda t: nodes.register(t.connection, "n2", "sdk", "slow", t.now))
    committed = await database.write(write_fact("revoked", awaited=True))
    await confirm(database, "n1", committed.log_id, committed.seq)
    before = database.clock.now()
    effect = await await_effect(database, committed.log_id, committed.seq, 60, wait_seconds=0.05)

    assert (effect.effective, effect.laggards) == (False, ("slow",))
    assert effect.effective_by >= before + 60
    assert effect.effective_by <= database.clock.now() + 60 + nodes.MARGIN_SECONDS + 60

    await confirm(database, "n2", committed.log_id, committed.seq)
    effect = await await_effect(database, committed.log_id, committed.seq, 60)
    assert (effect.effective, effect.laggards) == (True, ())


async def test_effect_does_not_wait_for_a_node_that_can_admit_nothing_more(database: Database) -> None:
    await database.write(lambda t: nodes.register(t.connection, "n1", "sdk", "dead", t.now))
    await database.write(lambda t: t.connection.execute(update(node).values(confirmed_at=t.now - 3600)))
    committed = await database.write(write_fact("revoked", awaited=True))

    assert (await await_effect(database, committed.log_id, committed.seq, 60)).effective


async def test_effect_with_an_unreadable_registry_is_not_effective(database: Database) -> None:
    """The change is committed; that its effect cannot be seen must not look like an effect, nor like a failure."""
    committed = await database.write(write_fact("revoked", awaited=True))

    async def broken(*_arguments: object, **_named: object) -> object:
        raise StorageError("gone")

    database.read = broken  # type: ignore[method-assign,assignment]
    effect = await await_effect(database, committed.log_id, committed.seq, 60, wait_seconds=0.02)

    assert not effect.effective
    assert effect.laggards == ("the node registry cannot be read",)
    assert effect.effective_by > database.clock.now() + 59


class World:
    """One node in full: follower, confirming thread and freshness, as a server wires them."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.name = name
        self.freshness = Freshness()
        self.loop = asyncio.get_running_loop()
        self.confirmer = Confirmer(
            database, name, database.clock, confirmed=self.confirmed, forgotten=lambda: None, every_seconds=0.05
        )
        self.follower = Follower(database, [], [self, self.confirmer])

    def reloaded(self, log_id: str, seq: int) -> None:
        self.freshness.loaded(log_id, seq)

    def advanced(self, seq: int, _awaited: int) -> None:
        self.freshness.advanced(seq)

    def lost(self) -> None:
        self.freshness.start_resync()

    def confirmed(self, sent: float, _received: float, answer: Confirmation) -> None:
        written = Sent(sent, answer.wrote_log_id, answer.wrote_applied)
        self.loop.call_soon_threadsafe(self.freshness.confirmed, written, answer.log_id, answer.head, 60.0)

    def fresh(self) -> bool:
        return self.freshness.fresh(self.database.clock.boottime(), 60.0)

    async def until_fresh(self) -> None:
        await until_async(self.fresh)


async def test_node_is_fresh_only_once_it_has_applied_what_its_confirm_saw(database: Database) -> None:
    await register(database, "n1")
    world = World(database, "n1")
    await database.write(write_fact("a"))
    assert not world.fresh()
    await world.follower.load()
    await database.write(write_fact("b"))
    world.confirmer.start()
    await until_async(lambda: world.confirmer.proven >= 1)
    await asyncio.sleep(0)
    assert not world.fresh()

    await world.follower.tick()
    await world.until_fresh()
    await asyncio.to_thread(world.confirmer.stop)


async def test_new_log_takes_freshness_away_until_it_is_loaded(database: Database) -> None:
    """After a restore nothing may be admitted from what was loaded before."""
    await register(database, "n1")
    world = World(database, "n1")
    await world.follower.load()
    world.confirmer.start()
    await world.follower.tick()
    await world.until_fresh()

    await database.write(lambda t: start_log(t.connection, t.now))
    await until_async(lambda: not world.fresh())  # the next confirm notices it, even if the follower does not look
    await world.follower.tick()
    await world.until_fresh()
    assert world.freshness.log_id == (await database.read(read_head)).log_id
    await asyncio.to_thread(world.confirmer.stop)


async def test_revocation_on_one_node_is_effective_when_the_others_have_it(
    database: Database, second: Database
) -> None:
    await database.write(lambda t: nodes.register(t.connection, "n1", "sdk", "n1", t.now))
    await database.write(lambda t: nodes.register(t.connection, "n2", "sdk", "n2", t.now))
    worlds = [World(database, "n1"), World(second, "n2")]
    for world in worlds:
        await world.follower.load()
        world.confirmer.start()
    following = [asyncio.create_task(world.follower.run()) for world in worlds]
    committed = await database.write(write_fact("revoked", awaited=True))
    effect = await await_effect(database, committed.log_id, committed.seq, 60, wait_seconds=20)

    assert effect.effective
    assert all(world.freshness.applied >= committed.seq for world in worlds)
    for world in worlds:
        await asyncio.to_thread(world.confirmer.stop)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
