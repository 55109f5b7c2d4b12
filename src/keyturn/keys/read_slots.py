"""A bound on what verification asks of the database at once.

The follower and management calls share the database with it: a flood of unknown keys, or a node that reads through,
must not be what keeps the news from arriving.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from keyturn.errors import StaleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE: Final = 4
CROWD: Final = 8
WAITING_MAX: Final = 256
WAIT_SECONDS: Final = 3.0


class ReadSlots:
    """Lets `AT_ONCE` reads run and `WAITING_MAX` wait; for one event loop."""

    def __init__(self) -> None:
        """Begin with every slot free."""
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    @property
    def crowded(self) -> bool:
        """Whether so many wait that an answer is sooner had without the database, if it can be."""
        return self._waiting >= CROWD

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot; raises StaleError when too many wait, or the wait is too long."""
        if self._waiting >= WAITING_MAX:
            raise StaleError("too many verifications wait for the database", hint="try again in a second")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise StaleError("the database did not answer in time", hint="try again in a second") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
