import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Connection, delete, select, update

from keyturn.errors import StorageError
from keyturn.storage.change_log import Change, read_head, start_log
from keyturn.storage.database import Database
from keyturn.storage.follower import Follower
from keyturn.storage.schema import audit_leaf, change, change_head, fact
from keyturn.storage.transaction import ChangeKind, Entry, Transaction
from tests.storage.ledger import entry, leaf, write_fact


@dataclass
class Shadow:
    """A consumer that mirrors the facts, and notes every call."""

    state: set[str] = field(default_factory=set)
    loads: int = 0
    batches: list[list[int]] = field(default_factory=list)
    fail_next: bool = False

    def load(self, connection: Connection) -> Callable[[], None]:
        found = {row.name for row in connection.execute(select(fact.c.name)).all()}

        def apply() -> None:
            self.loads += 1
            self.state = found

        return apply

    def refresh(self, connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("a bug in a consumer")
        names = [one.entity for one in changes]
        found = {row.name for row in connection.execute(select(fact.c.name).where(fact.c.name.in_(names))).all()}

        def apply() -> None:
            self.batches.append([one.seq for one in changes])
            self.state = (self.state - set(names)) | found

        return apply


@dataclass
class Reports:
    """A position that notes what it is told."""

    told: list[tuple[object, ...]] = field(default_factory=list)

    def reloaded(self, log_id: str, seq: int) -> None:
        self.told.append(("reloaded", log_id, seq))

    def advanced(self, seq: int, awaited: int) -> None:
        self.told.append(("advanced", seq, awaited))

    def lost(self) -> None:
        self.told.append(("lost",))


def set_head(seq: int) -> Callable[[Transaction], None]:
    """Take the log back, as an old backup or a replica that was behind would."""

    def work(transaction: Transaction) -> None:
        transaction.connection.execute(update(change_head).values(seq=seq))
        transaction.connection.execute(delete(change).where(change.c.seq > seq))
        lost = delete(audit_leaf).where(audit_leaf.c.seq > seq).returning(audit_leaf.c.resource)
        names = [row.resource.removeprefix("key/") for row in transaction.connection.execute(lost).all()]
        transaction.connection.execute(delete(fact).where(fact.c.name.in_(names)))

    return work


async def test_news_is_applied_in_order_and_in_batches(database: Database) -> None:
    shadow, reports = Shadow(), Reports()
    follower = Follower(database, [shadow], [reports], page=4)
    await database.write(write_fact("before"))
    await follower.load()
    for number in range(10):
        await database.write(write_fact(f"f{number}", awaited=number == 3))
    await follower.tick()

    assert shadow.state == {"before", *(f"f{number}" for number in range(10))}
    assert shadow.batches == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    log_id = (await database.head()).log_id
    assert reports.told == [("lost",), ("reloaded", log_id, 1), ("advanced", 11, 5)]


async def test_nothing_is_read_when_there_is_no_news(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    await follower.load()
    await follower.tick()
    await follower.tick()

    assert (shadow.loads, shadow.batches) == (1, [])


async def test_another_log_is_a_full_reload_and_nothing_is_served_meanwhile(database: Database) -> None:
    """A restore starts a new log: what was loaded before it counts for nothing."""
    shadow, reports = Shadow(), Reports()
    follower = Follower(database, [shadow], [reports])
    await database.write(write_fact("a"))
    await follower.load()
    reports.told.clear()

    await database.write(lambda t: start_log(t.connection, t.now))
    await database.write(write_fact("b"))
    await follower.tick()

    assert shadow.state == {"a", "b"}
    assert shadow.loads == 2
    assert [told[0] for told in reports.told] == ["lost", "reloaded", "advanced"]
    assert follower.log_id == (await database.head()).log_id


async def test_log_with_a_lower_head_than_before_the_reload_is_followed(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    for name in "abcde":
        await database.write(write_fact(name))
    await follower.load()
    await database.write(lambda t: start_log(t.connection, t.now))
    await database.write(set_head(1))

    async with asyncio.timeout(120):
        await follower.tick()
    await database.write(write_fact("after"))
    await follower.tick()

    assert (follower.applied, shadow.batches) == (2, [[2]])


async def test_head_below_what_was_applied_begins_a_new_log_for_everybody(database: Database) -> None:
    """Numbers that were given out have been lost: nobody may follow on, or they would miss what they are reused for."""
    shadow, reports = Shadow(), Reports()
    other = Shadow()
    follower, bystander = Follower(database, [shadow], [reports]), Follower(database, [other], [])
    for name in "abc":
        await database.write(write_fact(name))
    await follower.load()
    await bystander.load()
    old = follower.log_id
    reports.told.clear()
    await database.write(set_head(1))

    await follower.tick()
    # The number reached by the bystander is given again, for something else, before it looks.
    await database.write(write_fact("d"))
    await database.write(write_fact("e"))
    await bystander.tick()

    assert follower.log_id not in {"", old}
    assert [told[0] for told in reports.told] == ["lost", "lost", "reloaded", "advanced"]
    assert bystander.log_id == follower.log_id
    assert {"d", "e"} <= other.state


async def test_lost_log_is_replaced_even_if_that_failed_at_first(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    for name in "abc":
        await database.write(write_fact(name))
    await follower.load()
    old = follower.log_id
    await database.write(set_head(1))
    refuse = database.write

    async def refused(_work: object) -> object:
        raise StorageError("full")

    database.write = refused  # type: ignore[method-assign,assignment]
    with pytest.raises(StorageError):
        await follower.tick()
    database.write = refuse  # type: ignore[method-assign]
    # Meanwhile the head has passed what was applied.
    for name in "defg":
        await database.write(write_fact(name))
    await follower.tick()

    assert follower.log_id != old
    assert {"d", "e", "f", "g"} <= shadow.state


async def test_cursor_older_than_retention_reloads(database: Database) -> None:
    shadow, reports = Shadow(), Reports()
    follower = Follower(database, [shadow], [reports])
    await follower.load()
    for name in "abcd":
        await database.write(write_fact(name))
    await database.write(lambda t: t.connection.execute(delete(change).where(change.c.seq <= 2)))
    reports.told.clear()
    await follower.tick()

    assert shadow.state == set("abcd")
    assert (shadow.loads, shadow.batches) == (2, [])
    assert [told[0] for told in reports.told] == ["lost", "reloaded", "advanced"]


async def test_everything_dropped_reloads_too(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    await follower.load()
    await database.write(write_fact("a"))
    await database.write(lambda t: t.connection.execute(delete(change)))
    await follower.tick()

    assert (shadow.state, shadow.loads) == ({"a"}, 2)


async def test_consumers_see_no_half_of_a_change(database: Database) -> None:
    """All consumers change in one step of the event loop, so that no request meets a mixture."""
    first, second = Shadow(), Shadow()
    follower = Follower(database, [first, second], [])
    await follower.load()
    mixtures = 0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal mixtures
        while not done.is_set():
            mixtures += first.state != second.state or len(first.state) % 2
            await asyncio.sleep(0)

    def pair(number: int) -> Callable[[Transaction], None]:
        def work(transaction: Transaction) -> None:
            write_fact(f"{number}a")(transaction)
            write_fact(f"{number}b")(transaction)

        return work

    watching = asyncio.create_task(watch())
    for number in range(20):
        await database.write(pair(number))
        await follower.tick()
    done.set()
    await watching

    assert mixtures == 0
    assert len(first.state) == 40


async def test_commit_of_this_process_is_followed_at_once(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    await follower.load()
    running = asyncio.create_task(follower.run())
    await database.write(write_fact("a"))

    assert await follower.caught_up(10)
    assert shadow.state == {"a"}
    running.cancel()
    await asyncio.wait([running])


async def test_caught_up_waits_for_a_tick_that_began_after_the_call(database: Database) -> None:
    follower = Follower(database, [], [])
    await follower.load()

    assert not await follower.caught_up(0.05)  # nobody ticks

    waiting = asyncio.create_task(follower.caught_up(10))
    await asyncio.sleep(0)
    await follower.tick()
    assert await waiting


async def test_callers_that_wait_share_one_tick(database: Database) -> None:
    follower = Follower(database, [], [])
    await follower.load()
    waiting = [asyncio.create_task(follower.caught_up(10)) for _ in range(50)]
    await asyncio.sleep(0)
    await follower.tick()

    assert await asyncio.gather(*waiting) == [True] * 50


async def test_failing_database_is_counted_and_tried_again(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    await follower.load()
    real = database.head
    failed = asyncio.Event()

    async def broken() -> object:
        failed.set()
        raise StorageError("gone")

    database.head = broken  # type: ignore[method-assign,assignment]
    running = asyncio.create_task(follower.run())
    await failed.wait()
    database.head = real  # type: ignore[method-assign]
    await database.write(write_fact("a"))
    assert await follower.caught_up(10)

    assert follower.trouble.failures >= 1
    assert (shadow.state, shadow.loads) == ({"a"}, 1)
    running.cancel()
    await asyncio.wait([running])


async def test_consumer_that_raises_is_reloaded_and_served_from_no_more(database: Database) -> None:
    """What a consumer holds after a bug is unknown; it must not stay fresh."""
    shadow, reports = Shadow(), Reports()
    follower = Follower(database, [shadow], [reports])
    await follower.load()
    reports.told.clear()
    shadow.fail_next = True
    await database.write(write_fact("a"))
    running = asyncio.create_task(follower.run())
    assert await follower.caught_up(10)

    assert (shadow.state, shadow.loads) == ({"a"}, 2)
    assert [told[0] for told in reports.told][:3] == ["lost", "lost", "reloaded"]
    running.cancel()
    await asyncio.wait([running])


async def test_resync_reloads_in_the_next_tick(database: Database) -> None:
    shadow, reports = Shadow(), Reports()
    follower = Follower(database, [shadow], [reports])
    await follower.load()
    follower.resync()
    assert reports.told[-1] == ("lost",)
    await follower.tick()

    assert shadow.loads == 2


async def test_snapshot_and_its_number_are_of_one_moment(database: Database) -> None:
    """A change is either in the snapshot or above its number, whatever commits while it loads."""
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    stop = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            await database.write(write_fact(f"f{written}"))
            written += 1

    writing = asyncio.create_task(write())
    for _ in range(10):
        await follower.load()
        await asyncio.sleep(0)
        assert len(shadow.state) == follower.applied
    stop.set()
    await writing
    await follower.tick()
    assert len(shadow.state) == written
    assert (await database.read(read_head)).seq == written


async def test_entries_without_a_leaf_are_followed(database: Database) -> None:
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    await follower.load()
    await database.write(lambda t: t.append(entry("x", with_leaf=False)))
    await follower.tick()

    assert shadow.batches == [[1]]


async def test_a_run_of_leaves_is_passed_without_reading_it(database: Database, second: Database) -> None:
    """What this process has put on record changes no state; what another has, is read all the same."""
    shadow, reports = Shadow(), Reports()
    other = Shadow()
    follower, elsewhere = Follower(database, [shadow], [reports]), Follower(second, [other], [])
    await follower.load()
    await elsewhere.load()
    for name in ("x", "y"):
        read = Entry("wsp_1", ChangeKind.AUDIT, "", leaf(name))
        await database.write(lambda t, read=read: t.append(read))  # type: ignore[misc]
    await follower.tick()
    await elsewhere.tick()

    assert (follower.applied, shadow.batches, reports.told[-1]) == (2, [], ("advanced", 2, 0))
    assert (elsewhere.applied, other.batches) == (2, [[1, 2]])

    await database.write(write_fact("a"))
    await follower.tick()
    assert (follower.applied, shadow.batches, shadow.state) == (3, [[3]], {"a"})


async def test_a_run_of_leaves_of_another_log_is_not_passed(database: Database) -> None:
    """Numbers are given again after a restore, to other changes."""
    shadow = Shadow()
    follower = Follower(database, [shadow], [])
    read = Entry("wsp_1", ChangeKind.AUDIT, "", leaf("x"))
    await database.write(lambda t: t.append(read))
    log_id = (await database.head()).log_id
    assert database.leaves.after(log_id, 0) == 1
    await database.write(lambda t: start_log(t.connection, t.now))
    await database.write(set_head(0))
    await follower.load()
    await database.write(write_fact("a"))
    await follower.tick()

    assert (follower.applied, shadow.batches) == (1, [[1]])
    assert database.leaves.after((await database.head()).log_id, 0) == 0
