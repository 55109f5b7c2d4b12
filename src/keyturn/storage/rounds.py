"""Rounds: what a worker does again and again until it is stopped, whatever comes of a single time.

run      a round every so often, and at once when woken
attempt  do one thing; what fails is counted and logged, and is not raised
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger("keyturn")


class Rounds:
    """Does one piece of work in rounds, which outlive its failures and our own bugs.

    Belongs to one event loop.
    """

    def __init__(self, work: Callable[[], Awaitable[object]], *, every_seconds: float, failing: str) -> None:
        """Do `work` every `every_seconds`; `failing` is what is logged when that fails."""
        self._work = work
        self._every_seconds = every_seconds
        self._failing = failing
        self._woken = asyncio.Event()
        self.failures = 0
        """Attempts that ended with an error."""

    def wake(self) -> None:
        """Let the next round begin at once."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Do rounds until `stop` is set."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._woken.clear()
                await self.attempt(self._work)
                woken = asyncio.create_task(self._woken.wait())
                await asyncio.wait({stopping, woken}, timeout=self._every_seconds, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopping.cancel()

    async def attempt(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work` once; an error is counted and logged."""
        try:
            await work()
        except KeyturnError as error:
            self.failures += 1
            _log.warning(self._failing, code=error.code, reason=error.message)
        except Exception as error:  # noqa: BLE001 -- the rounds must outlive our own bugs
            self.failures += 1
            _log.error(self._failing, exc_info=error)
