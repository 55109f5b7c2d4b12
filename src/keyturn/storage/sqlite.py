"""SQLite: WAL, `synchronous=FULL`, one writer thread with group commit, a few reader threads.

    units -> writer thread: one transaction for all that wait -> COMMIT (one fsync of the log)
             checkpoint thread: log -> data file, beside the writer, once a second while there are commits

The driver's own transaction handling starts none before SELECT and would lose updates, so connections are in
autocommit mode and every transaction is begun by us: `BEGIN IMMEDIATE` to write, plain `BEGIN` to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, create_engine, event, exc, text
from sqlalchemy.pool import QueuePool

from keyturn.errors import BrokenInvariantError, StorageError
from keyturn.storage import nodes
from keyturn.storage.change_log import Head
from keyturn.storage.database import (
    BATCH_MAX,
    QUEUE_MAX,
    READ_SECONDS,
    WRITE_WAIT_SECONDS,
    Database,
    Job,
    busy,
    claim,
    closed,
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
    from keyturn.storage.transaction import Transaction

T = TypeVar("T")
READERS = 2
BUSY_SECONDS = 5.0
WAL_PAGES_MAX = 8192
"""From here on (32 MB) a commit copies what is left to copy; before, the thread of `_run_checkpoints` does."""

CHECKPOINT_SECONDS = 1.0
HEAD_BUSY_SECONDS = 0.05


def sqlite_engine(path: Path, *, writer: bool, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """Build an engine whose transactions begin as the module says; readers cannot write."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": busy_seconds},
        poolclass=QueuePool,
        # The writer thread keeps its connection; `maintain` takes one beside it.
        pool_size=2 if writer else READERS,
        max_overflow=0,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: DriverConnection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        if writer:
            connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES_MAX}")
        else:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


class SqliteDatabase(Database):
    """One data file, one writer thread."""

    dialect = "sqlite"

    def __init__(self, path: Path, clock: Clock, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Name the file; nothing is opened yet.  `busy_seconds` bounds the wait for another process's lock."""
        super().__init__(clock)
        self._path = path
        self._writer = sqlite_engine(path, writer=True, busy_seconds=busy_seconds)
        self._reader = sqlite_engine(path, writer=False, busy_seconds=busy_seconds)
        self._jobs: queue.Queue[Job | None] = queue.Queue(QUEUE_MAX)
        self._thread: threading.Thread | None = None
        self._writing: Connection | None = None
        self._checkpoints: threading.Thread | None = None
        self._ending = threading.Event()
        self._commits = 0
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="keyturn-read")
        self._head_driver: DriverConnection | None = None

    async def open(self) -> None:
        """Open the file and start the writer thread."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
        self._thread = threading.Thread(target=self._run_writer, name="keyturn-write", daemon=True)
        self._thread.start()
        self._ending.clear()
        self._checkpoints = threading.Thread(target=self._run_checkpoints, name="keyturn-checkpoint", daemon=True)
        self._checkpoints.start()

    async def close(self) -> None:
        """Finish what is queued, stop the writer thread, close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(self._jobs.put, None)
            await asyncio.to_thread(thread.join)
            self._refuse_the_rest()
        checkpoints, self._checkpoints = self._checkpoints, None
        if checkpoints is not None:
            self._ending.set()
            await asyncio.to_thread(checkpoints.join)
        await asyncio.to_thread(self._pool.shutdown)
        self._close_head()
        self._writer.dispose()
        self._reader.dispose()

    async def read(
        self,
        work: Callable[[Connection], T],
        *,
        within_seconds: float = READ_SECONDS,  # noqa: ARG002 -- a file keeps nobody waiting
        aside: bool = False,  # noqa: ARG002 -- it always is
    ) -> T:
        """See Database.read."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)
        except RuntimeError as error:
            if self._thread is None:
                raise closed() from error
            raise

    async def maintain(self, work: Callable[[Connection], T]) -> T:
        """See Database.maintain."""

        def run() -> T:
            try:
                with self._writer.connect() as connection, connection.begin():
                    return work(connection)
            except exc.SQLAlchemyError as error:
                raise translate(error) from error

        return await asyncio.to_thread(run)

    async def head(self) -> Head:
        """Read the head row inline: about 10 us, no thread hop."""
        try:
            if self._head_driver is None:
                self._head_driver = self._open_head()
            row = self._head_driver.execute("SELECT log_id, seq, awaited FROM change_head WHERE id = 1").fetchone()
        except sqlite3.Error as error:
            self._close_head()
            raise translate(error) from error
        if row is None:
            raise BrokenInvariantError("the change log has no head row", hint="run `keyturn migrate`")
        return Head(row[0], row[1], row[2])

    def confirm(self, node: str, log_id: str, applied: int) -> Confirmation:
        """Confirm through the writer thread, sharing its commits.

        Writers follow one another, so a change that the head does not show commits after this confirm and finds it.
        """

        def work(transaction: Transaction) -> Confirmation:
            at = self.clock.now()
            return nodes.confirm(transaction.connection, node, log_id, applied, at)

        job = self._submit(Job(work))
        try:
            confirmation = job.done.result(WRITE_WAIT_SECONDS).value
        except (TimeoutError, CancelledError) as error:
            job.done.cancel()
            raise StorageError("the node could not confirm", internal=type(error).__name__) from error
        assert isinstance(confirmation, nodes.Confirmation)  # noqa: S101 -- what `work` returns
        return confirmation

    def close_confirm(self) -> None:
        """Let go of nothing: a confirm goes through the writer thread."""

    def _open_head(self) -> DriverConnection:
        address = f"file:{quote(str(self._path))}?mode=ro"
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=HEAD_BUSY_SECONDS)

    def _close_head(self) -> None:
        if self._head_driver is not None:
            with contextlib.suppress(sqlite3.Error):
                self._head_driver.close()
            self._head_driver = None

    def _submit(self, job: Job) -> Job:
        if self._thread is None:
            raise closed()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise busy() from None
        return job

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._reader.connect() as connection, connection.begin():
                return work(connection)
        except (exc.SQLAlchemyError, sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise translate(error) from error

    def _run_writer(self) -> None:
        try:
            self._write_batches()
        finally:
            self._let_go()

    def _write_batches(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            last = False
            while len(jobs) < BATCH_MAX and not last:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                else:
                    jobs.append(following)
            self._commit(claim(jobs))
            if last:
                return

    def _commit(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            if self._writing is None:
                self._writing = self._writer.connect()
            with self._writing.begin():
                batch = run_batch(self._writing, jobs, self.clock.now())
        except Exception as error:  # noqa: BLE001 -- every caller of the batch gets it
            self._let_go()
            fail(jobs, error)
            return
        self._commits += 1
        self._announce(batch)
        batch.answer()

    def _let_go(self) -> None:
        """Close what the writer thread writes with; the next batch opens another."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with contextlib.suppress(exc.SQLAlchemyError, sqlite3.Error):
                writing.close()

    def _run_checkpoints(self) -> None:
        """Copy the log to the data file beside the writer, so that hardly any commit has to wait for that.

        PASSIVE takes no lock that a writer or a reader wants.  What was committed meanwhile stays in the log, and the
        log begins anew with the first write that finds all of it copied.
        """
        seen = self._commits
        driver = sqlite3.connect(self._path, isolation_level=None, timeout=0.0, check_same_thread=False)
        try:
            while not self._ending.wait(CHECKPOINT_SECONDS):
                if self._commits != seen:
                    seen = self._commits
                    with contextlib.suppress(sqlite3.Error):  # a commit does it then
                        driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            driver.close()

    def _refuse_the_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    fail(claim([job]), closed())
