"""SQLite: WAL, `synchronous=FULL`, one writer thread with group commit, a few reader threads.

The driver's own transaction handling starts none before SELECT and would lose updates, so connections are in
autocommit mode and every transaction is begun by us: `BEGIN IMMEDIATE` to write, plain `BEGIN` to read.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.pool import QueuePool

from keyturn.errors import StorageError
from keyturn.storage import nodes
from keyturn.storage.change_log import Head
from keyturn.storage.database import (
    BATCH_MAX,
    QUEUE_MAX,
    WRITE_WAIT_SECONDS,
    Database,
    Job,
    committed_value,
    fail,
    run_batch,
)
from keyturn.storage.faults import translate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from sqlite3 import Connection as DriverConnection

    from sqlalchemy import Connection, Engine

    from keyturn.kernel.clock import Clock
    from keyturn.storage.nodes import Confirmation
    from keyturn.storage.transaction import Committed, Transaction

T = TypeVar("T")
READERS = 2
BUSY_TIMEOUT_MS = 5000


def sqlite_engine(path: Path, *, writer: bool) -> Engine:
    """Build an engine whose transactions begin as the module says; readers cannot write."""
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
        poolclass=QueuePool,
        pool_size=1 if writer else READERS + 1,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: DriverConnection, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        if not writer:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


class SqliteDatabase(Database):
    """One data file, one writer thread."""

    dialect = "sqlite"

    def __init__(self, path: Path, clock: Clock) -> None:
        """Name the file; nothing is opened yet."""
        super().__init__(clock)
        self._path = path
        self._writer = sqlite_engine(path, writer=True)
        self._reader = sqlite_engine(path, writer=False)
        self._jobs: queue.Queue[Job | None] = queue.Queue(QUEUE_MAX)
        self._thread: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="keyturn-read")
        self._head_driver: DriverConnection | None = None

    async def open(self) -> None:
        """Open the file and start the writer thread."""
        try:
            with self._reader.connect() as connection:
                connection.execute(text("SELECT 1"))
        except exc.DBAPIError as error:
            raise translate(error) from error
        self._thread = threading.Thread(target=self._run_writer, name="keyturn-write", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Finish what is queued, stop the writer thread, close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._pool.shutdown(wait=True)
        if self._head_driver is not None:
            self._head_driver.close()
            self._head_driver = None
        self._writer.dispose()
        self._reader.dispose()

    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        """See Database.write."""
        job = self._submit(Job(work))
        try:
            return committed_value(await asyncio.wait_for(asyncio.wrap_future(job.done), WRITE_WAIT_SECONDS))
        except TimeoutError:
            message = f"the write was not confirmed within {WRITE_WAIT_SECONDS:g} s; its outcome is unknown"
            raise StorageError(message, hint="read the state back before trying again") from None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See Database.read."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)

    async def head(self) -> Head:
        """Read the head row inline: about 10 us, no thread hop."""
        try:
            if self._head_driver is None:
                self._head_driver = self._open_head()
            row = self._head_driver.execute("SELECT log_id, seq, awaited FROM change_head WHERE id = 1").fetchone()
        except sqlite3.Error as error:
            raise translate(error) from error
        return Head(row[0], row[1], row[2])

    def confirm(self, node: str, log_id: str, applied: int) -> Confirmation:
        """Confirm through the writer thread, sharing its commits."""

        def work(transaction: Transaction) -> Confirmation:
            at = self.clock.now()
            return nodes.confirm(transaction.connection, node, log_id, applied, at)

        job = self._submit(Job(work))
        result: Any = job.done.result(WRITE_WAIT_SECONDS).value
        return result  # type: ignore[no-any-return]

    def close_confirm(self) -> None:
        """Nothing is held: a confirm goes through the writer thread."""

    def _open_head(self) -> DriverConnection:
        return sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)

    def _submit(self, job: Job) -> Job:
        if self._thread is None:
            message = "the database is closed"
            raise StorageError(message)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            message = f"{QUEUE_MAX} writes are waiting already"
            raise StorageError(message, code="storage_busy", hint="slow down and try again") from None
        return job

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._reader.connect() as connection, connection.begin():
                return work(connection)
        except exc.SQLAlchemyError as error:
            raise translate(error) from error

    def _run_writer(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            stop = False
            while len(jobs) < BATCH_MAX:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                    break
                jobs.append(following)
            self._commit(jobs)
            if stop:
                return

    def _commit(self, queued: list[Job]) -> None:
        jobs = [job for job in queued if job.done.set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            with self._writer.connect() as connection, connection.begin():
                answers = run_batch(connection, jobs, self.clock.now())
        except Exception as error:  # noqa: BLE001 -- every caller of the batch gets it
            fail(jobs, error)
            return
        for answer in answers:
            answer()
        if seq := max(_seq(job) for job in jobs):
            self._announce(seq)


def _seq(job: Job) -> int:
    return job.done.result().seq if job.done.exception() is None else 0
