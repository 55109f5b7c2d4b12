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
from keyturn.storage.nodes import (
    MARGIN_SECONDS,
    VERIFIER,
    all_nodes,
    database_time,
    laggards,
    live,
    longest_staleness,
    serving,
)

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
    database: Database,
    log_id: str,
    seq: int,
    bound_seconds: float,
    *,
    of_rights: bool = False,
    wait_seconds: float = WAIT_SECONDS,
) -> Effect:
    """Wait until every live node has applied `seq`, for at most `wait_seconds`.

    With `of_rights` it may be the right to replicate that was taken.  A verifier that has not heard of it goes on for
    as long as any of its keyspaces lets it, however long that is.

    Never raises after the commit for want of a registry: an unreadable one counts as not effective.
    """
    clock = database.clock
    started = clock.boottime()

    def look(connection: Connection) -> tuple[list[str], float, float]:
        # Verifiers of other workspaces cannot admit the keys that this is about, and are not named to this caller.
        workspace = workspace_of(connection, seq)
        concerned = serving(all_nodes(connection), workspace)
        at = database_time(connection, clock.now())
        behind = laggards(concerned, at, bound_seconds, log_id, seq)
        bound = bound_seconds
        verifiers = [node for node in concerned if node.kind == VERIFIER] if of_rights else []
        if verifiers:
            longest = max(bound, longest_staleness(connection, workspace, at))
            named = {node.id for node in behind}
            behind += [node for node in laggards(verifiers, at, longest, log_id, seq) if node.id not in named]
            bound = longest if live(verifiers, at, longest) else bound
        return [node.label for node in behind], at, bound

    pause = FIRST_LOOK_SECONDS
    effective_by: float | None = None
    while True:
        await asyncio.sleep(pause)
        pause = LOOK_AGAIN_SECONDS
        try:
            behind, at, bound = await database.read(look)
        except StorageError:
            behind, at, bound = ["the node registry cannot be read"], clock.now(), bound_seconds
        if effective_by is None:
            effective_by = at + bound + MARGIN_SECONDS
        elapsed = clock.boottime() - started
        if not behind or elapsed >= wait_seconds:
            return Effect(not behind, round(elapsed * 1000, 3), effective_by, tuple(behind))
