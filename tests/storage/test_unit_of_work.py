import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text, update

from keyturn.errors import BrokenInvariantError, ConflictError, ForbiddenError, InputError, StorageError
from keyturn.kernel.clock import Clock
from keyturn.storage import database as port
from keyturn.storage.change_log import read_head
from keyturn.storage.database import Database
from keyturn.storage.engine import make_database
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import change_head, fact
from keyturn.storage.transaction import ChangeKind, Committed, Entry, RefusedError, Transaction
from tests.storage.ledger import changes, entry, facts, leaves, write_fact


async def test_state_leaf_and_change_row_commit_together(database: Database) -> None:
    committed = await database.write(write_fact("one"))

    assert committed == Committed("one", (await database.head()).log_id, 1)
    assert "one" in await database.read(facts)
    assert [(change.seq, change.entity) for change in await database.read(changes)] == [(1, "one")]
    assert await database.read(leaves) == {1: "one"}


async def test_failing_unit_leaves_nothing_and_takes_nothing_else_with_it(database: Database) -> None:
    def fails(transaction: Transaction) -> None:
        write_fact("lost")(transaction)
        raise ValueError("a bug")

    results = await asyncio.gather(
        database.write(write_fact("a")),
        database.write(fails),
        database.write(write_fact("b")),
        return_exceptions=True,
    )

    assert isinstance(results[1], ValueError)
    assert await database.read(facts) == {"a", "b"}
    assert [change.entity for change in await database.read(changes)] == ["a", "b"]
    assert await database.read(leaves) == {1: "a", 2: "b"}


async def test_units_that_arrive_together_share_a_commit(database: Database) -> None:
    announced: list[int] = []
    database.on_commit(announced.append)
    blocker = asyncio.create_task(database.write(write_fact("first")))

    await asyncio.gather(blocker, *(database.write(write_fact(f"f{n}")) for n in range(40)))

    assert announced[-1] == 41
    assert len(announced) < 10
    assert [change.seq for change in await database.read(changes)] == list(range(1, 42))


async def test_refusal_keeps_its_leaf_and_nothing_of_the_unit(database: Database) -> None:
    """A denial is on record although the unit that was denied is undone."""

    def refused(transaction: Transaction) -> None:
        write_fact("denied-state")(transaction)
        raise RefusedError(ForbiddenError("not this"), entry("denied"))

    with pytest.raises(ForbiddenError, match="not this"):
        await database.write(refused)

    assert await database.read(facts) == set()
    assert await database.read(leaves) == {1: "denied"}
    assert (await database.head()).seq == 1


async def test_unit_without_entries_gets_no_number(database: Database) -> None:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute(insert(fact).values(name="quiet", value=""))

    assert await database.write(work) == Committed(None, "", 0)
    assert (await database.head()).seq == 0


async def test_numbers_have_no_gaps_whatever_fails(database: Database) -> None:
    def unit(number: int) -> "asyncio.Task[object]":
        def work(transaction: Transaction) -> None:
            for part in range(number % 3 + 1):
                transaction.append(entry(f"{number}.{part}", with_leaf=part != 1))
            if number % 4 == 0:
                raise RuntimeError("undone")

        return asyncio.ensure_future(database.write(work))

    results = await asyncio.gather(*(unit(number) for number in range(60)), return_exceptions=True)

    found = await database.read(changes)
    assert [change.seq for change in found] == list(range(1, len(found) + 1))
    assert sum(isinstance(result, RuntimeError) for result in results) == 15
    by_number = {change.seq: change.entity for change in found}
    kept = await database.read(leaves)
    assert all(by_number[seq] == entity for seq, entity in kept.items())
    assert all(entity.endswith(".1") for seq, entity in by_number.items() if seq not in kept)


async def test_committed_number_is_that_of_the_units_last_entry(database: Database) -> None:
    def work(transaction: Transaction) -> str:
        transaction.append(entry("x"))
        transaction.append(entry("y"))
        return "y"

    results = await asyncio.gather(
        database.write(write_fact("a")), database.write(work), database.write(write_fact("b"))
    )

    by_number = {change.seq: change.entity for change in await database.read(changes)}
    assert [by_number[result.seq] for result in results] == ["a", "y", "b"]


async def test_unit_sees_what_the_units_before_it_did(database: Database) -> None:
    """Units of all nodes follow one another: what a unit has read is still so when it commits."""
    await database.write(lambda t: t.connection.execute(insert(fact).values(name="n", value="0")))

    def increment(transaction: Transaction) -> None:
        found = transaction.connection.execute(select(fact.c.value).where(fact.c.name == "n")).scalar_one()
        transaction.connection.execute(update(fact).where(fact.c.name == "n").values(value=str(int(found) + 1)))

    await asyncio.gather(*(database.write(increment) for _ in range(50)))

    assert await database.read(lambda c: c.execute(select(fact.c.value)).scalar_one()) == "50"


async def test_two_nodes_lose_no_update(database: Database, second: Database) -> None:
    """A node cannot overwrite what another decided between its reading and its writing (an un-revocation)."""
    if database.dialect == "sqlite":
        pytest.skip("SQLite has one server process")
    await database.write(lambda t: t.connection.execute(insert(fact).values(name="n", value="0")))

    def increment(transaction: Transaction) -> None:
        found = transaction.connection.execute(select(fact.c.value).where(fact.c.name == "n")).scalar_one()
        transaction.connection.execute(update(fact).where(fact.c.name == "n").values(value=str(int(found) + 1)))

    async def some(one: Database) -> None:
        for _ in range(25):
            await one.write(increment)

    await asyncio.gather(some(database), some(second), some(database), some(second))

    assert await database.read(lambda c: c.execute(select(fact.c.value)).scalar_one()) == "100"


async def test_awaited_is_the_highest_number_somebody_waits_for(database: Database) -> None:
    await database.write(write_fact("a"))
    await database.write(write_fact("b", awaited=True))
    await database.write(write_fact("c"))

    head = await database.head()
    assert (head.seq, head.awaited) == (3, 2)


async def test_duplicate_is_a_conflict_of_its_own_unit(database: Database) -> None:
    await database.write(write_fact("a"))

    results = await asyncio.gather(
        database.write(write_fact("a")), database.write(write_fact("b")), return_exceptions=True
    )

    assert isinstance(results[0], ConflictError)
    assert results[0].code == "duplicate"
    assert isinstance(results[1], Committed)


@pytest.mark.parametrize("entity", ["a\x00b", "a\ud800b", "x" * 2000], ids=["NUL", "surrogate", "too long"])
async def test_entry_that_cannot_be_stored_fails_alone(database: Database, entity: str) -> None:
    def work(transaction: Transaction) -> None:
        transaction.append(Entry("wsp_1", ChangeKind.KEY, entity))

    results = await asyncio.gather(
        database.write(write_fact("a")), database.write(work), database.write(write_fact("b")), return_exceptions=True
    )

    assert isinstance(results[1], BrokenInvariantError)
    assert await database.read(facts) == {"a", "b"}


async def test_text_the_database_cannot_hold_is_bad_input_not_an_outage(database: Database) -> None:
    def work(transaction: Transaction) -> None:
        transaction.connection.execute(insert(fact).values(name="a\ud800", value=""))

    with pytest.raises(InputError):
        await database.write(work)
    await database.write(write_fact("after"))


async def test_read_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError) as caught:
        await database.read(lambda connection: connection.execute(insert(fact).values(name="x", value="")))

    assert caught.value.code == "storage_readonly"
    assert await database.read(facts) == set()


async def test_read_sees_one_state_while_others_commit(database: Database) -> None:
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def slow(connection: Connection) -> None:
        seen.append(read_head(connection).seq)
        if database.dialect == "sqlite":
            asyncio.run_coroutine_threadsafe(database.write(write_fact("during")), loop).result(120)
        seen.append(read_head(connection).seq)

    await database.read(slow)

    assert seen == [0, 0]


async def test_read_aside_leaves_the_event_loop_free(database: Database) -> None:
    """A snapshot of a million keys takes seconds to build; requests go on meanwhile."""
    await database.write(write_fact("a"))
    free = threading.Event()

    def computes(connection: Connection) -> set[str]:
        found = facts(connection)
        assert free.wait(120)  # set by the event loop
        return found | facts(connection)

    reading = asyncio.create_task(database.read(computes, aside=True))
    await asyncio.sleep(0.01)
    free.set()

    assert await reading == {"a"}


async def test_read_aside_raises_what_any_read_raises(database: Database) -> None:
    def fails(_connection: Connection) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await database.read(fails, aside=True)
    with pytest.raises(StorageError):
        await database.read(lambda c: c.execute(text("SELECT * FROM absent")), aside=True)


@pytest.mark.postgres
async def test_reader_may_compute_for_long_and_a_writer_may_not(postgres_url: str) -> None:
    """A node that stops while it writes is cut off by the server; one that loads a snapshot is not."""
    postgres = make_database(postgres_url, Clock())
    await postgres.open()
    query = text("SHOW idle_in_transaction_session_timeout")

    def ask(connection: Connection) -> str:
        return str(connection.execute(query).scalar_one())

    for aside in (False, True):
        assert await postgres.read(ask, aside=aside) == "10min"
    assert (await postgres.write(lambda t: ask(t.connection))).value == "4s"
    await postgres.close()


async def test_cancelled_waiting_write_is_not_carried_out(database: Database) -> None:
    entered, release = threading.Event(), threading.Event()

    def blocks(transaction: Transaction) -> None:
        write_fact("blocker")(transaction)
        entered.set()
        if database.dialect == "sqlite":
            release.wait(120)

    blocker = asyncio.create_task(database.write(blocks))
    await asyncio.sleep(0)
    if database.dialect == "sqlite":
        await asyncio.to_thread(entered.wait, 10)
    else:
        await asyncio.sleep(0)  # the writer has taken the blocker and waits for its connection
    waiting = asyncio.create_task(database.write(write_fact("cancelled")))
    other = asyncio.create_task(database.write(write_fact("other")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    release.set()
    await asyncio.gather(blocker, other)

    kept = await database.read(facts)
    assert waiting.cancelled()
    assert {"blocker", "other"} <= kept
    assert "cancelled" not in kept


async def test_full_queue_is_refused_at_once(database: Database) -> None:
    database.write_wait_seconds = 300
    entered, release = threading.Event(), threading.Event()

    def blocks(_transaction: Transaction) -> None:
        entered.set()
        if database.dialect == "sqlite":
            release.wait(120)

    running: list[asyncio.Task[Any]] = [asyncio.create_task(database.write(blocks))]
    await asyncio.sleep(0)
    if database.dialect == "sqlite":
        await asyncio.to_thread(entered.wait, 10)
    running += [asyncio.create_task(database.write(write_fact(f"q{n}"))) for n in range(port.QUEUE_MAX + 5)]
    await asyncio.sleep(0)
    refused = [task for task in running if task.done()]
    release.set()
    results = await asyncio.gather(*running, return_exceptions=True)

    assert refused
    errors = [result for result in results if isinstance(result, BaseException)]
    assert {type(error) for error in errors} == {StorageError}
    assert {error.code for error in errors if isinstance(error, StorageError)} == {"storage_busy"}
    assert (await database.head()).seq == len(results) - len(errors) - 1


async def test_write_that_waits_too_long_says_whether_it_was_begun(database: Database) -> None:
    if database.dialect != "sqlite":
        pytest.skip("a unit on PostgreSQL cannot be held up without holding up the event loop")
    database.write_wait_seconds = 0.2
    entered, release = threading.Event(), threading.Event()

    def blocks(transaction: Transaction) -> None:
        write_fact("slow")(transaction)
        entered.set()
        release.wait(120)

    running = asyncio.create_task(database.write(blocks))
    await asyncio.to_thread(entered.wait, 10)
    with pytest.raises(StorageError) as waited:
        await database.write(write_fact("never"))
    with pytest.raises(StorageError) as begun:
        await running
    release.set()
    database.write_wait_seconds = 10
    await database.write(write_fact("after"))

    assert waited.value.code == "storage_busy"
    assert begun.value.code == "storage_unknown"
    assert await database.read(facts) == {"slow", "after"}


async def test_closing_finishes_what_is_queued_and_refuses_the_rest(database: Database, second: Database) -> None:
    tasks = [asyncio.create_task(database.write(write_fact(f"f{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()

    await asyncio.gather(*tasks)
    with pytest.raises(StorageError, match="closed"):
        await database.write(write_fact("late"))
    assert len(await second.read(facts)) == 20


async def test_listener_that_raises_does_not_stop_the_writer(database: Database) -> None:
    def broken(_seq: int) -> None:
        raise RuntimeError("a bug")

    database.on_commit(broken)
    await database.write(write_fact("a"))
    await database.write(write_fact("b"))

    assert (await database.head()).seq == 2


async def test_a_commit_of_leaves_alone_is_no_news(database: Database) -> None:
    """Who follows state is not woken by an access that only went on record; who counts commits counts it."""
    commits: list[int] = []
    news: list[int] = []
    database.on_commit(commits.append)
    database.on_commit(news.append, of_news=True)
    leaf = entry("read").leaf

    await database.write(lambda t: t.append(Entry("wsp_1", ChangeKind.AUDIT, "", leaf)))
    await database.write(write_fact("a"))

    assert (commits, news) == ([1, 2], [2])


async def test_an_error_of_the_database_in_a_batch_is_translated_and_the_next_batch_runs(database: Database) -> None:
    """The writer keeps its connection from batch to batch, but not one that a batch has failed on."""
    await database.write(write_fact("a"))

    def number_is_taken(transaction: Transaction) -> None:
        transaction.connection.execute(update(change_head).values(seq=0))
        write_fact("b")(transaction)

    with pytest.raises(BrokenInvariantError, match="taken already"):
        await database.write(number_is_taken)
    await database.write(write_fact("c"))

    assert await database.read(facts) == {"a", "c"}
    assert (await database.head()).seq == 2


async def test_the_log_of_sqlite_is_copied_beside_the_writer(tmp_path: Path) -> None:
    """A commit hardly ever waits for that, and a log that is left behind is not left to grow."""
    path = tmp_path / "keyturn.db"
    await migrate_async(f"sqlite:///{path}")
    one = make_database(f"sqlite:///{path}", Clock())
    await one.open()
    try:
        await one.write(write_fact("copied-to-the-data-file"))
        async with asyncio.timeout(30):
            while b"copied-to-the-data-file" not in path.read_bytes():  # noqa: ASYNC110 -- waits for the other thread
                await asyncio.sleep(0.02)
    finally:
        await one.close()
