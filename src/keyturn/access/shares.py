"""Shares of what a worker has little of: no workspace takes more than its part, however many wait for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Shares:
    """So many places for each workspace; who finds none waits for one of its own workspace, and for nobody else's."""

    def __init__(self, each: int) -> None:
        """Give each workspace so many places."""
        self._each = each
        self._held: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def place(self, workspace: str) -> AsyncIterator[None]:
        """Hold a place of the workspace; bound the wait with a timeout."""
        places, users = self._held.get(workspace) or (asyncio.Semaphore(self._each), 0)
        self._held[workspace] = (places, users + 1)
        try:
            async with places:
                yield
        finally:
            left = self._held[workspace][1] - 1
            if left:
                self._held[workspace] = (places, left)
            else:
                del self._held[workspace]
