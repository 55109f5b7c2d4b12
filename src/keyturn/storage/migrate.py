"""Bring a database to the schema of this program: `keyturn migrate` on PostgreSQL, by itself at start on SQLite.

    one transaction:  lock (PostgreSQL: pg_advisory_xact_lock, SQLite: BEGIN IMMEDIATE)
                      -> revisions up to HEAD_REVISION -> head row of the change log if there is none -> COMMIT

Any number of processes may run it at once: one works, the others wait and find nothing to do.  Revisions only
expand, so a database that is ahead of the program by one release still serves it: see `require_current`.
Alembic costs more start-up time than everything else of storage, so it is imported only when a revision has to run.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, func, inspect, select, text

from keyturn.config import Settings
from keyturn.errors import ConfigError
from keyturn.kernel.clock import Clock
from keyturn.storage.change_log import start_log
from keyturn.storage.engine import locate
from keyturn.storage.faults import translate
from keyturn.storage.schema import change_head, metadata
from keyturn.storage.sqlite import sqlite_engine

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD_REVISION = "0011"
"""The newest revision this program knows; a test compares it with the files."""

MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x6B65_7974_7572_6E00  # "keyturn"; any fixed number of our own
_alembic = threading.Lock()  # Alembic's proxies are global to the process


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did: the revision before (None for an empty database) and after."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return self.before != self.after


def migrate(target: Settings | str) -> Migration:
    """Migrate the database of the settings, or of a URL (`sqlite:///path` or `postgresql…://…`); blocking.

    Do not call it on a thread whose event loop is running; see `migrate_async`.
    Raises StorageError when the database is out of reach; nothing is changed then.
    """
    place = locate(target)
    try:
        if isinstance(place, Path):
            return _migrate_sqlite(place)
        return asyncio.run(_migrate_postgresql(place))
    except Exception as error:
        raise translate(error) from error


async def migrate_async(target: Settings | str) -> Migration:
    """Do what `migrate` does, in a thread of its own."""
    return await asyncio.to_thread(migrate, target)


def migrate_connection(connection: Connection) -> Migration:
    """Migrate inside the open transaction of `connection`; the caller commits."""
    before = current_revision(connection)
    if before is None and connection.dialect.name == "sqlite" and not inspect(connection).get_table_names():
        _create_at_once(connection)
    elif not _is_current(before):
        _run_revisions(connection)
    if connection.execute(select(change_head.c.id)).first() is None:
        start_log(connection, Clock().now())
    return Migration(before, current_revision(connection) or "")


def current_revision(connection: Connection) -> str | None:
    """Return the revision the database has, None when nothing was migrated yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def pending(connection: Connection) -> list[str]:
    """Return the revisions that `migrate` would run, in order."""
    before = current_revision(connection)
    if _is_current(before):
        return []
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_configuration())
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    return [revision for revision in revisions if before is None or revision > before]


def require_current(connection: Connection) -> None:
    """Refuse to serve a database that lacks a revision; raises ConfigError saying what to run."""
    found = current_revision(connection)
    if not _is_current(found):
        message = f"the database's schema is at revision {found or 'none'}; this program needs {HEAD_REVISION}"
        raise ConfigError(message, code="schema_pending", hint="run `keyturn migrate`")


def _is_current(revision: str | None) -> bool:
    # Revisions are numbered upward with leading zeros, so that text order is their order.
    return revision is not None and revision >= HEAD_REVISION


def _migrate_sqlite(path: Path) -> Migration:
    _create_private(path)
    engine = sqlite_engine(path, writer=True)
    try:
        with engine.begin() as connection:
            return migrate_connection(connection)
    finally:
        engine.dispose()


def _create_private(path: Path) -> None:
    # SQLite gives its -wal and -shm files the mode of the main file.
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


async def _migrate_postgresql(url: str) -> Migration:
    from sqlalchemy.ext.asyncio import create_async_engine

    from keyturn.storage.postgresql import WITHOUT_LIMITS, connect_driver

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: connect_driver(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(WITHOUT_LIMITS))
            await connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            return await connection.run_sync(migrate_connection)
    finally:
        await engine.dispose()


def _create_at_once(connection: Connection) -> None:
    # A first start is counted in seconds, and Alembic's import is a large part of one.  A test proves that the
    # revisions make the same schema.
    metadata.create_all(connection)
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)"
        )
    )
    connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD_REVISION})


def _run_revisions(connection: Connection) -> None:
    from alembic import command

    config = _configuration()
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")


def _configuration() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
