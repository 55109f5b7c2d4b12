"""PostgreSQL through asyncpg: one writer task with group commit, a pool for reads.

    write:    advisory lock -> units -> numbering -> COMMIT      one connection, a batch at a time
    confirm:  own thread, event loop and connection, so that neither a busy loop nor a full pool can make a
              healthy node look stale

Write transactions of all nodes take one advisory lock first, so that units cannot overwrite what others decided;
the order of the change log does not depend on it.  No wait is unbounded: the server ends what holds a lock and
idles, and a connection that does not answer in time is cut off here, not cancelled, for a server that is cut off
answers a cancellation no sooner.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from sqlalchemy import exc, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from keyturn.errors import BrokenInvariantError, StorageError
from keyturn.storage.change_log import Head, read_head
from keyturn.storage.database import (
    BATCH_MAX,
    QUEUE_MAX,
    READ_SECONDS,
    WRITE_WAIT_SECONDS,
    Batch,
    Database,
    Job,
    busy,
    claim,
    closed,
    fail,
    run_batch,
)
from keyturn.storage.faults import is_disconnect, translate
from keyturn.storage.nodes import Confirmation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from sqlalchemy import Connection

    from keyturn.kernel.clock import Clock

T = TypeVar("T")
READ_POOL = 8
CONNECT_SECONDS = 5.0
CONFIRM_SECONDS = 5.0
HEAD_SECONDS = 5.0
BATCH_SECONDS = 10.0
AT_ONCE_SECONDS = 1.0

WRITER_LOCK = 0x6B65_7974_7572_6E01
"""Key of the advisory lock that write transactions take; any fixed number of our own."""

# A paused writer must not hold the others up for ever: the server ends its transaction.
SERVER_SETTINGS = {
    "application_name": "keyturn",
    "idle_in_transaction_session_timeout": "4000",
    "lock_timeout": "8000",
    "statement_timeout": "600000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

# A reader holds nobody up, and may compute for long between two statements while it loads a snapshot.
READER_SETTINGS = SERVER_SETTINGS | {"idle_in_transaction_session_timeout": "600000"}

_ERRORS = (
    exc.SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
    OverflowError,
    UnicodeEncodeError,
)
# For work that takes as long as it takes: migrations and restores.
WITHOUT_LIMITS = """
SELECT set_config(name, '0', true)
FROM unnest(ARRAY['lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout']) AS name
"""

_LOCK = select(func.pg_advisory_xact_lock(WRITER_LOCK))

_SNAPSHOT: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

# Two statements: the write must be visible to others before the head is read, or a revocation that commits in
# between would neither be in this head nor find this node.
_CONFIRM_WRITE = """
UPDATE node SET applied = $3, log_id = $2, confirmed_at = extract(epoch FROM clock_timestamp())
WHERE id = $1 RETURNING confirmed_at
"""
_CONFIRM_READ = "SELECT log_id, seq, extract(epoch FROM clock_timestamp())::float8 AS at FROM change_head WHERE id = 1"


def driver_address(url: str) -> str:
    """Return a PostgreSQL URL in the form asyncpg reads, `sslmode` and the like included.  Holds a password."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def connect_driver(url: str, settings: Mapping[str, str] = SERVER_SETTINGS) -> Any:  # noqa: ANN401 -- untyped
    """Open a driver's connection with bounded waits; raises what asyncpg raises."""
    return await asyncpg.connect(driver_address(url), timeout=CONNECT_SECONDS, server_settings=dict(settings))


def postgresql_engine(url: str, *, pool_size: int, settings: Mapping[str, str] = SERVER_SETTINGS) -> AsyncEngine:
    """Build an engine with bounded waits on connecting, locks and idle transactions."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_driver(url, settings),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        hide_parameters=True,
    )


@contextlib.asynccontextmanager
async def cut_off_after(seconds: float, connection: AsyncConnection) -> AsyncIterator[None]:
    """Abort the connection unless the body ends in time; it then sees the connection lost."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 -- it was just checked out
    timer = asyncio.get_running_loop().call_later(seconds, driver.terminate)
    try:
        yield
    finally:
        timer.cancel()


class PostgresqlDatabase(Database):
    """One PostgreSQL database shared by any number of nodes."""

    dialect = "postgresql"

    def __init__(self, url: str, clock: Clock) -> None:
        """Name the database as `postgresql://…` or `postgresql+asyncpg://…`; nothing is opened yet.

        `url` may hold a password: never log it.
        """
        super().__init__(clock)
        self.url = url
        self.batch_seconds = BATCH_SECONDS
        self.head_seconds = HEAD_SECONDS
        self.confirm_seconds = CONFIRM_SECONDS
        self._writer = postgresql_engine(url, pool_size=1)
        self._reader = postgresql_engine(url, pool_size=READ_POOL, settings=READER_SETTINGS)
        self._snapshots = self._reader.execution_options(**_SNAPSHOT)
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
        task, self._task = self._task, None
        if task is not None:
            await self._jobs.put(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_WAIT_SECONDS):
                    await task
        await self._writer.dispose()
        await self._reader.dispose()

    async def read(
        self, work: Callable[[Connection], T], *, within_seconds: float = READ_SECONDS, aside: bool = False
    ) -> T:
        """See Database.read.  One snapshot for the whole closure (REPEATABLE READ, read only)."""
        if aside:
            return await _in_own_thread(lambda: asyncio.run(self._read_once(work, within_seconds)))
        return await self._on(self._snapshots, work, within_seconds)

    async def _read_once(self, work: Callable[[Connection], T], seconds: float) -> T:
        engine = postgresql_engine(self.url, pool_size=1, settings=READER_SETTINGS)
        try:
            return await self._on(engine.execution_options(**_SNAPSHOT), work, seconds)
        finally:
            await engine.dispose()

    async def maintain(self, work: Callable[[Connection], T]) -> T:
        """See Database.maintain."""
        engine = postgresql_engine(self.url, pool_size=1)
        try:
            async with engine.begin() as connection:
                await connection.execute(text(WITHOUT_LIMITS))
                await connection.execute(_LOCK)
                return await connection.run_sync(work)
        except _ERRORS as error:
            raise translate(error) from error
        finally:
            await engine.dispose()

    async def head(self) -> Head:
        """Read the head row on a pooled connection."""
        return await self._on(self._points, read_head, self.head_seconds)

    def confirm(self, node: str, log_id: str, applied: int) -> Confirmation:
        """Confirm on the calling thread's own loop and connection; a broken connection is replaced next time."""
        if self._confirming is None:
            self._confirming = (asyncio.Runner(), None)
        runner, connection = self._confirming
        try:
            if connection is None:
                connection = runner.run(connect_driver(self.url))
                self._confirming = (runner, connection)
            return runner.run(_confirm(connection, self.confirm_seconds, node, log_id, applied))
        except _ERRORS as error:
            self._confirming = (runner, None)
            if connection is not None:
                connection.terminate()
            raise StorageError("the node could not confirm", internal=type(error).__name__) from error

    def close_confirm(self) -> None:
        """Close the confirming thread's connection and loop; call it from that thread."""
        if self._confirming is None:
            return
        runner, connection = self._confirming
        self._confirming = None
        if connection is not None:
            with contextlib.suppress(*_ERRORS):
                runner.run(connection.close(timeout=1))
        runner.close()

    def _submit(self, job: Job) -> Job:
        if self._task is None:
            raise closed()
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise busy() from None
        return job

    async def _on(self, engine: AsyncEngine, work: Callable[[Connection], T], seconds: float) -> T:
        began = asyncio.get_running_loop().time()
        try:
            return await _run_on(engine, work, seconds)
        except _ERRORS as error:
            if not is_disconnect(error) or not _at_once(began, seconds):
                raise translate(error) from error
        # A pooled connection was lost while it lay there; the pool has replaced all of them.
        try:
            return await _run_on(engine, work, seconds)
        except _ERRORS as error:
            raise translate(error) from error

    async def _run_writer(self) -> None:
        while (job := await self._jobs.get()) is not None:
            jobs = [job]
            last = False
            while len(jobs) < BATCH_MAX and not last and not self._jobs.empty():
                following = self._jobs.get_nowait()
                if following is None:
                    last = True
                else:
                    jobs.append(following)
            if claimed := claim(jobs):
                await self._commit(claimed)
            if last:
                return

    async def _commit(self, jobs: list[Job]) -> None:
        batch: Batch | None = None
        try:
            async with self._begin() as connection:
                batch = await connection.run_sync(run_batch, jobs, self.clock.now())
        except asyncio.CancelledError:
            fail(jobs, StorageError("the database was closed while it was writing", code="storage_unknown"))
            raise
        except Exception as error:  # noqa: BLE001 -- every caller of the batch gets it
            fail(jobs, error, committing=batch is not None)
            return
        self._announce(batch)
        batch.answer()

    @contextlib.asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        """Begin a write transaction that holds the writers' lock; it commits unless the body raises."""
        began = asyncio.get_running_loop().time()
        async with contextlib.AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._locked())
            except exc.DBAPIError as error:
                if not is_disconnect(error) or not _at_once(began, self.batch_seconds):
                    raise
                # The connection was lost since the batch before, and nothing has run yet.
                connection = await stack.enter_async_context(self._locked())
            yield connection

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[AsyncConnection]:
        async with (
            self._writer.connect() as connection,
            cut_off_after(self.batch_seconds, connection),
            connection.begin(),
        ):
            await connection.execute(_LOCK)
            yield connection


def _at_once(began: float, seconds: float) -> bool:
    """Tell a connection that was lost before it was used from one that was cut off after `seconds`."""
    return asyncio.get_running_loop().time() - began < min(AT_ONCE_SECONDS, seconds / 2)


async def _in_own_thread(work: Callable[[], T]) -> T:
    """Run blocking work beside the event loop, in a thread that does not outlive the process."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- handed to who waits
            done.set_exception(error)

    done.set_running_or_notify_cancel()
    threading.Thread(target=run, name="keyturn-aside", daemon=True).start()
    return await asyncio.wrap_future(done)


async def _run_on(engine: AsyncEngine, work: Callable[[Connection], T], seconds: float) -> T:
    async with engine.connect() as connection, cut_off_after(seconds, connection), connection.begin():
        return await connection.run_sync(work)


async def _confirm(connection: Any, seconds: float, node: str, log_id: str, applied: int) -> Confirmation:  # noqa: ANN401 -- as above
    timer = asyncio.get_running_loop().call_later(seconds, connection.terminate)
    try:
        known = await connection.fetchval(_CONFIRM_WRITE, node, log_id, applied)
        row = await connection.fetchrow(_CONFIRM_READ)
    finally:
        timer.cancel()
    if row is None:
        raise BrokenInvariantError("the change log has no head row", hint="run `keyturn migrate`")
    return Confirmation(known is not None, row["log_id"], row["seq"], row["at"], log_id, applied)
