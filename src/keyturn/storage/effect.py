"""Effect: when has every node applied a change, and by when can none that has not still act on the old state?

`effective` is True once every live node is known to have applied the change.  `effective_by` holds either way:
database time at or after the commit, plus the staleness bound, plus a margin.  No verification received after the
one or the other is admitted (design, Freshness and revocation).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.errors import StorageError
from keyturn.storage.change_log import workspace_of
from keyturn.storage.nodes import MARGIN_SECONDS, Node, all_nodes, database_time, laggards, serving

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.storage.database import Database

FIRST_LOOK_SECONDS = 0.004
LOOK_AGAIN_SECONDS = 0.010
WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Effect:
    """How far a committed change has spread."""

    effective: bool
    lag_ms: float
    """Milliseconds from the return of the commit to the answer."""
    effective_by: float
    """Epoch seconds, database time."""
    laggards: tuple[str, ...]


async def await_effect(
    database: Database, log_id: str, seq: int, bound_seconds: float, *, wait_seconds: float = WAIT_SECONDS
) -> Effect:
    """Wait until every live node has applied `seq`, for at most `wait_seconds`.

    Never raises after the commit for want of a registry: an unreadable one counts as not effective.
    """
    clock = database.clock
    started = clock.boottime()

    def look(connection: Connection) -> tuple[list[Node], float]:
        # Verifiers of other workspaces cannot admit the keys that this is about, and are not named to this caller.
        concerned = serving(all_nodes(connection), workspace_of(connection, seq))
        return concerned, database_time(connection, clock.now())

    pause = FIRST_LOOK_SECONDS
    effective_by: float | None = None
    while True:
        await asyncio.sleep(pause)
        pause = LOOK_AGAIN_SECONDS
        try:
            nodes, at = await database.read(look)
            behind = [n.label for n in laggards(nodes, at, bound_seconds, log_id, seq)]
        except StorageError:
            at, behind = clock.now(), ["the node registry cannot be read"]
        if effective_by is None:
            effective_by = at + bound_seconds + MARGIN_SECONDS
        elapsed = clock.boottime() - started
        if not behind or elapsed >= wait_seconds:
            return Effect(not behind, round(elapsed * 1000, 3), effective_by, tuple(behind))
