"""Election of one worker for background work.

A lease row in database time.  It only avoids doing work twice: a paused leader may wake up and go on, so the
work itself must be safe against two leaders (the audit tree compares before it swaps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, or_, select, update

from keyturn.storage.nodes import database_time
from keyturn.storage.schema import election

if TYPE_CHECKING:
    from sqlalchemy import Connection


def stand(connection: Connection, name: str, holder: str, seconds: float, now: float) -> bool:
    """Take or extend the lease `name` for `seconds`; return whether `holder` has it now."""
    at = database_time(connection, now)
    taken = connection.execute(
        update(election)
        .where(election.c.name == name, or_(election.c.holder == holder, election.c.until < at))
        .values(holder=holder, until=at + seconds)
    )
    if taken.rowcount == 1:
        return True
    if connection.execute(select(election.c.name).where(election.c.name == name)).first() is not None:
        return False
    connection.execute(insert(election).values(name=name, holder=holder, until=at + seconds))
    return True


def resign(connection: Connection, name: str, holder: str) -> None:
    """Give the lease up, so that another worker need not wait for it to end."""
    connection.execute(update(election).where(election.c.name == name, election.c.holder == holder).values(until=0.0))
