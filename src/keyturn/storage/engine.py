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
    url = database_url(target)
    if is_sqlite(url):
        return SqliteDatabase(sqlite_path(url), clock)
    from keyturn.storage.postgresql import PostgresqlDatabase  # its driver is not loaded on SQLite

    return PostgresqlDatabase(url, clock)


def database_url(target: Settings | str) -> str:
    """Return the URL of the settings' database.  May hold a password: never log it."""
    if isinstance(target, str):
        return target
    return target.asyncpg_url or f"sqlite:///{target.sqlite_path}"


def is_sqlite(url: str) -> bool:
    """Tell whether a URL names a SQLite file."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> Path:
    """Return the file that a SQLite URL names; raises ConfigError when it names none."""
    database = make_url(url).database
    if not database or database == ":memory:":
        raise ConfigError("a SQLite database in memory keeps nothing", hint="name a file: sqlite:///path")
    return Path(database)
