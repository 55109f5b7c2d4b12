import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select, delete, insert, select, text, update

from keyturn.audit import checkpoint
from keyturn.audit.builder import Builder
from keyturn.audit.signing import present_key
from keyturn.audit.store import _UNBUILT_COUNT, _UNBUILT_OLDEST, oldest_unbuilt, unbuilt_leaves
from keyturn.audit.tree import LEAVES_PER_STEP, frontier_at, leaf_index, plan, read_checkpoint
from keyturn.errors import ConflictError
from keyturn.kernel import merkle
from keyturn.kernel.note import NoteError, VerifierKey, public_key
from keyturn.storage.migrate import migrate_async
from keyturn.storage.schema import audit_checkpoint, audit_leaf, audit_tile, audit_tree
from keyturn.storage.schema import workspace as workspace_table
from keyturn.storage.transaction import Transaction
from tests.audit.log import OTHER_WORKSPACE, WORKSPACE, Log, new_keyring, opened


async def verifier(log: Log, workspace: str = WORKSPACE) -> VerifierKey:
    key = await log.database.write(lambda t: present_key(t.connection, log.keyring, workspace, t.now))
    return VerifierKey(checkpoint.origin_of(workspace), public_key(key.value))


async def test_signed_root_is_that_of_the_stored_bytes_in_log_order(log: Log) -> None:
    await log.append(3)
    await log.append(2, workspace=OTHER_WORKSPACE)
    await log.append(4)

    assert await log.builder.build_once() == 9

    for workspace, size in ((WORKSPACE, 7), (OTHER_WORKSPACE, 2)):
        signed = await log.database.read(partial(read_checkpoint, workspace=workspace))
        assert signed is not None
        stated = checkpoint.read(signed.note, await verifier(log, workspace))
        expected = merkle.root([merkle.leaf_hash(body) for body in await log.bodies(workspace)])
        assert (stated.size, stated.root, stated.number) == (size, expected, 1)


@pytest.mark.parametrize("counts", [(1,), (255, 1, 1), (256,), (300, 300), (1, 511, 513)])
async def test_tiles_and_frontier_hold_every_earlier_tree(log: Log, counts: tuple[int, ...]) -> None:
    await log.grow(*counts)

    hashes = [merkle.leaf_hash(body) for body in await log.bodies()]
    sizes = sorted({0, 1, sum(counts), *(s for s in (2, 255, 256, 257, 511, 512) if s <= sum(counts))})
    roots = await log.database.read(lambda c: [frontier_at(c, WORKSPACE, size).root() for size in sizes])

    assert roots == [merkle.root(hashes[:size]) for size in sizes]


async def test_more_leaves_than_one_step_takes_are_all_built(log: Log) -> None:
    await log.append(LEAVES_PER_STEP + 5)

    assert await log.builder.build_once() == LEAVES_PER_STEP + 5
    assert (await log.latest()).size == LEAVES_PER_STEP + 5


async def test_leaves_that_wait_are_counted_in_every_workspace_also_where_no_tree_is_begun(log: Log) -> None:
    async def waiting() -> tuple[int, bool]:
        return await log.database.read(lambda c: (unbuilt_leaves(c), oldest_unbuilt(c) is not None))

    def add(transaction: Transaction) -> None:
        for name in (WORKSPACE, OTHER_WORKSPACE):
            row = {"id": name, "name": name, "state": "active", "created_at": 0.0, "revision": 1}
            transaction.connection.execute(insert(workspace_table).values(row))

    await log.database.write(add)
    assert await waiting() == (0, False)
    await log.append(3)
    assert await waiting() == (3, True)
    await log.builder.build_once()
    assert await waiting() == (0, False)
    await log.append(2)
    await log.append(4, workspace=OTHER_WORKSPACE)
    assert await waiting() == (6, True)


async def test_counting_what_waits_goes_by_the_index(tmp_path: Path) -> None:
    """A scrape must not read a log of millions of leaves."""
    url = f"sqlite:///{tmp_path / 'keyturn.db'}"
    await migrate_async(url)

    def steps_of(connection: Connection, query: Select[Any]) -> list[str]:
        explain = f"EXPLAIN QUERY PLAN {query.compile(compile_kwargs={'literal_binds': True})}"
        return [str(row.detail) for row in connection.execute(text(explain))]

    async with opened(url) as database:
        for query in (_UNBUILT_COUNT, _UNBUILT_OLDEST):
            steps = await database.read(partial(steps_of, query=query))
            (leaves,) = [step for step in steps if "audit_leaf" in step]
            assert "SEARCH" in leaves
            assert "workspace=? AND seq>?" in leaves


async def test_nothing_is_signed_without_news(log: Log) -> None:
    await log.grow(2)
    first = await log.latest()

    assert await log.builder.build_once() == 0
    assert await log.latest() == first


async def test_checkpoints_are_numbered_without_gaps_whoever_builds(log: Log) -> None:
    await log.grow(1, 2)
    await log.builder._resign()  # noqa: SLF001 -- as a worker that stops
    log.builder = Builder(log.database, log.keyring, "nod_other")
    await log.grow(3)

    assert checkpoint.number_of((await log.latest()).note) == 3


async def test_worker_that_is_not_elected_builds_nothing(log: Log) -> None:
    await log.grow(1)
    other = Builder(log.database, log.keyring, "nod_other")
    await log.append(1)

    assert await other.build_once() == 0
    assert not other.health.leader
    assert await log.builder.build_once() == 1


async def test_second_leader_cannot_add_the_same_leaves_twice(log: Log) -> None:
    """A paused leader that wakes up after another has taken over must not corrupt the tree."""
    await log.grow(3)
    await log.append(2)
    late = await log.database.read(lambda c: plan(c, WORKSPACE))
    assert late is not None
    await log.builder.build_once()
    signed = await log.latest()

    with pytest.raises(ConflictError):
        await log.database.write(lambda t: late.store(t.connection))

    assert await log.latest() == signed
    await log.grow(1)
    hashes = [merkle.leaf_hash(body) for body in await log.bodies()]
    assert (await log.latest()).root == merkle.root(hashes)


@pytest.mark.postgres
async def test_two_leaders_at_once_build_one_correct_tree(migrated_postgres_url: str) -> None:
    """The lease may be held by two for a moment; the compare-and-swap has to carry the tree alone."""
    await migrate_async(migrated_postgres_url)
    async with opened(migrated_postgres_url) as first, opened(migrated_postgres_url) as second:
        log = Log(first, new_keyring())
        rivals = [log.builder, Builder(second, log.keyring, "nod_test")]
        for _ in range(20):
            await log.append(7)
            await asyncio.gather(*(rival.build_once() for rival in rivals))
        await log.builder.build_once()
        hashes = [merkle.leaf_hash(body) for body in await log.bodies()]
        signed = await log.latest()
    assert (signed.size, signed.root) == (140, merkle.root(hashes))


async def test_tree_that_is_not_the_signed_one_is_never_signed_again(log: Log) -> None:
    """Who alters the stored tree must not get a signature on the result; other workspaces go on."""
    await log.grow(3)
    forged = merkle.Frontier(3, [bytes(32), bytes(32)]).to_bytes()
    await log.alter(update(audit_tree).values(frontier=forged))
    await log.append(1)
    await log.append(1, workspace=OTHER_WORKSPACE)

    assert await log.builder.build_once() == 1

    assert log.builder.health.broken == (WORKSPACE,)
    assert (await log.latest()).size == 3


@pytest.mark.parametrize("what", ["tile", "checkpoint", "body"])
async def test_missing_pieces_stop_the_signing_of_that_workspace(log: Log, what: str) -> None:
    """A tile, checkpoint or body that vanished is reported, not papered over."""
    await log.grow(3)
    await log.append(2)
    await log.alter(
        {
            "tile": update(audit_tile).values(hashes=bytes(64)),
            "checkpoint": delete(audit_checkpoint),
            "body": update(audit_leaf).where(audit_leaf.c.seq == 5).values(body=None),
        }[what]
    )

    assert await log.builder.build_once() == 0
    assert log.builder.health.broken == (WORKSPACE,)


async def test_leaf_index_counts_the_workspace_alone(log: Log) -> None:
    for _ in range(6):
        await log.append(2, workspace=OTHER_WORKSPACE)
        await log.grow(3)
    await log.append(2)

    def indices(connection: Connection, workspace: str) -> list[int]:
        query = select(audit_leaf.c.seq).where(audit_leaf.c.workspace == workspace).order_by(audit_leaf.c.seq)
        return [leaf_index(connection, workspace, seq) for seq in connection.execute(query).scalars()]

    for workspace, count in ((WORKSPACE, 20), (OTHER_WORKSPACE, 12)):
        assert await log.database.read(partial(indices, workspace=workspace)) == list(range(count))


async def test_builder_runs_until_stopped_and_builds_what_came_last(log: Log) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(log.builder.run(stop))
    await log.append(4)
    stop.set()
    await running

    assert (await log.latest()).size == 4
    assert not log.builder.health.leader


async def test_checkpoint_of_another_workspace_is_not_accepted(log: Log) -> None:
    """One tenant's signed tree must not pass for another's."""
    await log.grow(1)
    other = await verifier(log, OTHER_WORKSPACE)

    with pytest.raises(NoteError):
        checkpoint.read((await log.latest()).note, other)
