"""The few statements that every batch runs, in the driver's own words where that costs less.

What SQLAlchemy builds around a statement takes longer than SQLite takes for a small one.  On PostgreSQL the driver is
asynchronous, and the statement goes through SQLAlchemy.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


def sqlite_driver(connection: Connection) -> sqlite3.Connection | None:
    """Return the driver's connection of SQLite, None on another database.  It raises the driver's own exceptions."""
    driver = connection.connection.driver_connection
    return driver if isinstance(driver, sqlite3.Connection) else None


def execute(connection: Connection, statement: str) -> None:
    """Run a statement that has no parameters and no result, such as a savepoint."""
    driver = sqlite_driver(connection)
    if driver is None:
        connection.exec_driver_sql(statement)
    else:
        driver.execute(statement)


def fetch_all(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
    """Return the rows of a statement whose parameters the driver of this database understands."""
    driver = sqlite_driver(connection)
    if driver is None:
        return connection.exec_driver_sql(statement, tuple(parameters)).all()
    return driver.execute(statement, parameters).fetchall()
