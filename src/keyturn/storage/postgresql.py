"""PostgreSQL through asyncpg: one writer task with group commit, a pool for reads.

Confirm runs on a connection and an event loop of its own, in the confirming thread, so that neither a busy
loop nor a full pool can make a healthy node look stale.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from sqlalchemy import exc, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from keyturn.errors import StorageError
from keyturn.storage.change_log import Head, read_head
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
from keyturn.storage.nodes import Confirmation

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from keyturn.kernel.clock import Clock
    from keyturn.storage.transaction import Committed, Transaction

T = TypeVar("T")
READ_POOL = 8
CONNECT_SECONDS = 5.0
CONFIRM_SECONDS = 5.0

# A paused writer must not hold the head row for ever: the server ends its transaction.
SERVER_SETTINGS = {
    "application_name": "keyturn",
    "lock_timeout": "8000",
    "idle_in_transaction_session_timeout": "4000",
    "statement_timeout": "30000",
}

# Two statements, each its own transaction: the write must be visible in the registry before the head is read.  In one
# statement, a revocation could find the registry without this node, and this node the head without the revocation.
_CONFIRM = """
UPDATE node SET applied = $3, log_id = $2, confirmed_at = extract(epoch FROM clock_timestamp()) WHERE id = $1
"""
_CONFIRM_HEAD = """
SELECT log_id, seq, extract(epoch FROM clock_timestamp())::float8 AS at FROM change_head WHERE id = 1
"""


class PostgresqlDatabase(Database):
    """One PostgreSQL database shared by any number of nodes."""

    dialect = "postgresql"

    def __init__(self, url: str, clock: Clock) -> None:
        """Name the database as `postgresql+asyncpg://…`; nothing is opened yet."""
        super().__init__(clock)
        self._url = url
        self._writer = postgresql_engine(url, pool_size=1)
        self._reader = postgresql_engine(url, pool_size=READ_POOL)
        self._snapshots = self._reader.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._points = self._reader.execution_options(isolation_level="AUTOCOMMIT")
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue(QUEUE_MAX)
        self._task: asyncio.Task[None] | None = None
        self._confirming: tuple[asyncio.Runner, Any] | None = None

    async def open(self) -> None:
        """Connect once, then start the writer task."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
        self._task = asyncio.create_task(self._run_writer(), name="keyturn-write")

    async def close(self) -> None:
        """Finish what is queued and close every connection."""
        if self._task is not None:
            await self._jobs.put(None)
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._task, WRITE_WAIT_SECONDS)
            self._task = None
        await self._writer.dispose()
        await self._reader.dispose()

    async def write(self, work: Callable[[Transaction], T]) -> Committed[T]:
        """See Database.write."""
        if self._task is None:
            message = "the database is closed"
            raise StorageError(message)
        job = Job(work)
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            message = f"{QUEUE_MAX} writes are waiting already"
            raise StorageError(message, code="storage_busy", hint="slow down and try again") from None
        try:
            return committed_value(await asyncio.wait_for(asyncio.wrap_future(job.done), WRITE_WAIT_SECONDS))
        except TimeoutError:
            message = f"the write was not confirmed within {WRITE_WAIT_SECONDS:g} s; its outcome is unknown"
            raise StorageError(message, hint="read the state back before trying again") from None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See Database.read.  One snapshot for the whole closure (REPEATABLE READ, read only)."""
        try:
            async with self._snapshots.begin() as connection:
                return await connection.run_sync(work)
        except (exc.SQLAlchemyError, OSError, TimeoutError) as error:
            raise translate(error) from error

    async def head(self) -> Head:
        """Read the head row on a pooled connection."""
        try:
            async with self._points.connect() as connection:
                return await connection.run_sync(read_head)
        except (exc.SQLAlchemyError, OSError, TimeoutError) as error:
            raise translate(error) from error

    def confirm(self, node: str, log_id: str, applied: int) -> Confirmation:
        """Confirm on the calling thread's own loop and connection; a broken connection is replaced next time."""
        if self._confirming is None:
            self._confirming = (asyncio.Runner(), None)
        runner, connection = self._confirming
        try:
            if connection is None:
                connection = runner.run(self._connect_confirm())
                self._confirming = (runner, connection)
            done, row = runner.run(_confirm(connection, node, log_id, applied))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            self._confirming = (runner, None)
            if connection is not None:
                connection.terminate()
            message = "the node could not confirm"
            raise StorageError(message, internal=type(error).__name__) from error
        return Confirmation(done == "UPDATE 1", row["log_id"], row["seq"], row["at"])

    def close_confirm(self) -> None:
        """Close the confirming thread's connection and loop; call it from that thread."""
        if self._confirming is None:
            return
        runner, connection = self._confirming
        self._confirming = None
        if connection is not None:
            with contextlib.suppress(Exception):
                runner.run(connection.close(timeout=1))
        runner.close()

    async def _connect_confirm(self) -> Any:  # noqa: ANN401 -- asyncpg is untyped
        dsn = make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        return await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, server_settings=SERVER_SETTINGS)

    async def _run_writer(self) -> None:
        while (job := await self._jobs.get()) is not None:
            jobs = [job]
            stop = False
            while len(jobs) < BATCH_MAX and not self._jobs.empty():
                following = self._jobs.get_nowait()
                if following is None:
                    stop = True
                    break
                jobs.append(following)
            await self._commit([job for job in jobs if job.done.set_running_or_notify_cancel()])
            if stop:
                return

    async def _commit(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            async with self._writer.connect() as connection, connection.begin():
                answers = await connection.run_sync(run_batch, jobs, self.clock.now())
        except Exception as error:  # noqa: BLE001 -- every caller of the batch gets it
            fail(jobs, error)
            return
        for answer in answers:
            answer()
        if seq := max(job.done.result().seq if job.done.exception() is None else 0 for job in jobs):
            self._announce(seq)


async def _confirm(connection: Any, node: str, log_id: str, applied: int) -> tuple[str, Any]:  # noqa: ANN401 -- untyped
    done = await connection.execute(_CONFIRM, node, log_id, applied, timeout=CONFIRM_SECONDS)
    return done, await connection.fetchrow(_CONFIRM_HEAD, timeout=CONFIRM_SECONDS)
