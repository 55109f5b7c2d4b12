"""INSERT … ON CONFLICT, in the words of the connection's dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


def insert_on_conflict(connection: Connection, table: Table) -> Any:  # noqa: ANN401 -- one of two dialects' inserts
    """Build an insert that has `on_conflict_do_nothing` and `on_conflict_do_update`."""
    # Imported when known: PostgreSQL's dialect is a sixth of a server's start-up time, and SQLite does not need it.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
