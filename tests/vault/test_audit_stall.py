"""What cannot be put on record is not let out, and nobody waits for it without end."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from keyturn.access.caller import TokenOwner
from keyturn.errors import IntegrityError, StorageError
from keyturn.storage.transaction import Transaction
from tests.vault.library import Library, opened_library


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read, with a short bound; the test runs on both databases."""
    async with opened_library(migrated_database_url, stall_seconds=0.4) as one:
        yield one


@pytest.fixture
async def patient(migrated_database_url: str) -> AsyncIterator[Library]:
    """The same with a bound that a slow machine keeps too, where what counts is not the bound."""
    async with opened_library(migrated_database_url, stall_seconds=30.0) as one:
        yield one


async def test_a_stalled_writer_refuses_every_read_within_the_bound_and_gives_no_value(library: Library) -> None:
    await library.put()
    app = await library.app()
    release, holding = asyncio.Event(), asyncio.Event()
    stalled = _stall(library, holding, release)
    await holding.wait()

    async with asyncio.timeout(120):
        found = await asyncio.gather(*(library.read(by=app) for _ in range(8)), return_exceptions=True)
    release.set()
    await stalled

    assert [getattr(one, "code", one) for one in found] == ["audit_stalled"] * 8
    assert library.reader.meter.stalls == 8
    assert (await library.read(by=app)).version == 1


async def test_a_read_whose_commit_fails_gives_no_value_and_leaves_no_leaf(
    patient: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value was opened by then; it leaves after the commit, or not at all."""
    await patient.put()
    app = await patient.app()
    before = len(await patient.accesses())
    from keyturn.storage import database as port

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(port, "append", full)
        found = await asyncio.gather(*(patient.read(by=app) for _ in range(4)), return_exceptions=True)

    assert all(isinstance(one, StorageError) for one in found)
    assert len(await patient.accesses()) == before
    assert (await patient.read(by=app)).fields == {"token": "held"}
    assert len(await patient.accesses()) == before + 1


async def test_what_was_learnt_in_a_transaction_that_failed_is_not_trusted(
    patient: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was written in a transaction that is undone must not be given out by the next read."""
    await patient.put(fields={"token": "first"})
    app = await patient.app()
    from keyturn.storage import database as port

    def failing(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(port, "append", failing)
        await asyncio.gather(patient.put(fields={"token": "second"}), patient.read(by=app), return_exceptions=True)
    assert (await patient.read(by=app)).fields == {"token": "first"}


async def test_a_bug_in_one_read_fails_that_read_alone(patient: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    await patient.put("production/a/good")
    await patient.put("production/a/bad")
    app = await patient.app()
    from keyturn.vault import sealing

    opening = sealing.open_version

    def buggy(keyring, connection, secret, version):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if secret.path.endswith("bad"):
            raise ZeroDivisionError
        return opening(keyring, connection, secret, version)

    monkeypatch.setattr(sealing, "open_version", buggy)
    found = await asyncio.gather(
        *(patient.read(f"production/a/{name}", app) for name in ("good", "bad", "good")), return_exceptions=True
    )

    assert isinstance(found[1], ZeroDivisionError)
    assert [one.fields for one in (found[0], found[2]) if not isinstance(one, BaseException)] == [{"token": "held"}] * 2


async def test_who_gave_up_waiting_leaves_no_trace_of_a_value(library: Library) -> None:
    await library.put()
    app = await library.app()
    release, holding = asyncio.Event(), asyncio.Event()
    stalled = _stall(library, holding, release)
    await holding.wait()
    first = asyncio.create_task(library.read(by=app))
    second = asyncio.create_task(library.read(by=app))
    await asyncio.sleep(0)
    second.cancel()
    release.set()
    await stalled

    assert (await first).version == 1
    assert len(await library.accesses()) == 1


async def test_a_database_locked_by_another_process_refuses_reads_in_bounded_time(
    migrated_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keyturn.db"
    shutil.copy(migrated_file, path)
    async with opened_library(f"sqlite:///{path}", stall_seconds=0.4) as library:
        await library.put()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            async with asyncio.timeout(120):
                with pytest.raises(StorageError) as refused:
                    await library.read()
            assert refused.value.code == "audit_stalled"
        finally:
            other.execute("ROLLBACK")
            other.close()


async def test_a_token_that_cannot_be_proven_fails_its_own_read_alone(
    patient: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the keys of one workspace keeps nobody else from reading."""
    await patient.put()
    app, other = await patient.app("shop"), await patient.app("other")
    prove = patient.desk.system.prove

    def broken(connection: Connection, presented: str, now: float) -> TokenOwner | None:
        if presented == other.token.reveal():
            raise IntegrityError("the pepper does not open")
        return prove(connection, presented, now)

    monkeypatch.setattr(patient.desk.system, "prove", broken)
    found = await asyncio.gather(patient.read(by=app), patient.read(by=other), return_exceptions=True)

    assert [isinstance(one, IntegrityError) for one in found] == [False, True]


def _stall(library: Library, holding: asyncio.Event, release: asyncio.Event) -> "asyncio.Task[object]":
    """Hold the writer up, as a slow disk does, until it is released."""
    loop = asyncio.get_running_loop()
    released = threading.Event()

    def hold(transaction: Transaction) -> None:
        del transaction
        loop.call_soon_threadsafe(holding.set)
        released.wait(120)

    async def run() -> None:
        if library.desk.database.dialect == "sqlite":
            held = asyncio.ensure_future(library.desk.database.write(hold))
            await release.wait()
            released.set()
            await held
        else:
            await _hold_lock(library, holding, release)

    return asyncio.create_task(run())


async def _hold_lock(library: Library, holding: asyncio.Event, release: asyncio.Event) -> None:
    """Hold the lock that write transactions of all nodes take."""
    from keyturn.storage.postgresql import WRITER_LOCK, PostgresqlDatabase, connect_driver

    database = library.desk.database
    assert isinstance(database, PostgresqlDatabase)
    connection = await connect_driver(database.url)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({WRITER_LOCK})")
        holding.set()
        await release.wait()
    finally:
        await connection.close()
