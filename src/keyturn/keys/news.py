"""News: what has changed lately, in memory, for everybody who waits for it.

    follower --refresh--> News: a window of change rows --wake--> long polls
             --advanced-> applied, awaited

A poll that waits costs the database nothing, and any number of them are woken by one tick.  A cursor from before the
window is served from the database.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from keyturn.kernel.ids import is_id
from keyturn.storage.transaction import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from keyturn.storage.change_log import Change

KEPT: Final = 20_000
RIGHTS: Final = frozenset(
    {ChangeKind.WORKSPACE, ChangeKind.PRINCIPAL, ChangeKind.ROLE, ChangeKind.GRANT, ChangeKind.KEYSPACE}
)


class News:
    """A `Consumer` and a `Position` of the follower; for one event loop."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._changes: list[Change] = []
        self._complete_after = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self.log_id = ""
        self.applied = -1
        self.awaited = 0

    # --- Consumer -------------------------------------------------------------------------------------------------

    def load(self, connection: Connection) -> Callable[[], None]:  # noqa: ARG002 -- news has no state to read
        """Forget the window: everything is reloaded."""
        return self._changes.clear

    def refresh(self, connection: Connection, changes: Sequence[Change]) -> Callable[[], None]:  # noqa: ARG002
        """Take over the change rows themselves."""
        rows = list(changes)

        def apply() -> None:
            self._changes.extend(rows)
            if len(self._changes) > 2 * KEPT:
                self._complete_after = self._changes[-KEPT - 1].seq
                del self._changes[:-KEPT]

        return apply

    # --- Position -------------------------------------------------------------------------------------------------

    def reloaded(self, log_id: str, seq: int) -> None:
        """See Position."""
        self.log_id, self.applied, self.awaited = log_id, seq, 0
        self._complete_after = seq
        self.wake()

    def advanced(self, seq: int, awaited: int) -> None:
        """See Position."""
        if seq != self.applied or awaited != self.awaited:
            self.applied, self.awaited = seq, awaited
            self.wake()

    def lost(self) -> None:
        """See Position."""
        self.log_id, self.applied = "", -1
        self._changes.clear()

    # --- asking ---------------------------------------------------------------------------------------------------

    def since(self, after: int) -> Sequence[Change] | None:
        """Return the changes above `after` up to `applied`; None when the window does not reach back so far.

        Numbers may be missing that hold an audit leaf alone.
        """
        if after >= self.applied:
            return ()
        if after < self._complete_after:
            return None
        changes = self._changes
        return changes[_above(changes, after) : _above(changes, self.applied)]

    def rights_changed(self, workspace: str, since: int) -> bool:
        """Tell whether anybody's rights in a workspace may be others than they were at `since`."""
        found = self.since(since)
        return found is None or touches_rights(found, workspace)

    async def wait(self, seconds: float) -> None:
        """Wait for a step of the follower, for `wake`, or for at most so long."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        """Let everybody look again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _above(changes: Sequence[Change], number: int) -> int:
    return bisect_right(changes, number, key=lambda change: change.seq)


def touches_rights(changes: Iterable[Change], workspace: str) -> bool:
    """Tell whether changes may concern somebody's rights in a workspace."""
    return any(
        change.workspace == workspace
        and (change.kind in RIGHTS or (change.kind == ChangeKind.KEY and is_id("tok", change.entity)))
        for change in changes
    )
