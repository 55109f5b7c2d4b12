"""Choose the engine: PostgreSQL when an address is given, SQLite in the data folder otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from keyturn.config import Settings
from keyturn.errors import ConfigError
from keyturn.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from keyturn.kernel.clock import Clock
    from keyturn.storage.database import Database


def make_database(target: Settings | str, clock: Clock) -> Database:
    """Build the database of the settings, or of a URL (`sqlite:///path` or `postgresql…://…`); not opened yet."""
    place = locate(target)
    if isinstance(place, Path):
        return SqliteDatabase(place, clock)
    from keyturn.storage.postgresql import PostgresqlDatabase  # its driver is not loaded on SQLite

    return PostgresqlDatabase(place, clock)


def locate(target: Settings | str) -> Path | str:
    """Return the file of a SQLite database, or the URL of a PostgreSQL one.

    The URL may hold a password: never log it.  Raises ConfigError when the target names no database.
    """
    if isinstance(target, Settings):
        return target.asyncpg_url or target.sqlite_path
    if not target.startswith("sqlite:"):
        return target
    database = make_url(target).database
    if not database or database == ":memory:":
        raise ConfigError("a SQLite database in memory keeps nothing", hint="name a file: sqlite:///path")
    return Path(database)
