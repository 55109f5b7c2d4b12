"""Leadership: one worker's part in an election that it stands for again and again.

    lead     have the lead: as it is, extended when half of it is over, or taken over from one that has ended
    resign   give it up, so that another worker need not wait for its end

A lead counts from before it was asked for, in boot time.  See `election` for what it does not promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.errors import ConflictError
from keyturn.storage import election

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction


class Leadership:
    """Stands for one election as one worker."""

    def __init__(
        self,
        database: Database,
        name: str,
        holder: str,
        *,
        seconds: float,
        stand_again_seconds: float,
        took_over: Callable[[Transaction], None] | None = None,
    ) -> None:
        """Stand for the election `name` as `holder`, a node id, for `seconds` each time.

        Who lost stands again after `stand_again_seconds`.  `took_over` is done in the unit of work that takes the lead
        from somebody else, or after it had ended; not in one that extends it.
        """
        self._database = database
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._stand_again_seconds = stand_again_seconds
        self._took_over = took_over
        self._until = 0.0
        self._stand_after = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this worker leads now."""
        return self._database.clock.boottime() < self._until

    async def lead(self) -> bool:
        """Have the lead, taking or extending it when half of it is over; False when another worker leads."""
        now = self._database.clock.boottime()
        if now < self._until - self._seconds / 2:
            return True
        if not self.is_held and now < self._stand_after:
            return False
        takes_over = not self.is_held

        def stand(transaction: Transaction) -> bool:
            if not election.stand(transaction.connection, self._name, self._holder, self._seconds, transaction.now):
                return False
            if takes_over and self._took_over is not None:
                self._took_over(transaction)
            return True

        try:
            elected = await self._database.write(stand)
        except ConflictError:
            return False
        if elected.value:
            self._until = now + self._seconds
            return True
        self._until, self._stand_after = 0.0, now + self._stand_again_seconds
        return False

    async def resign(self) -> None:
        """Give the lead up, if it is held; raises KeyturnError when that could not be written."""
        if not self.is_held:
            return
        self._until = 0.0
        await self._database.write(lambda t: election.resign(t.connection, self._name, self._holder))
