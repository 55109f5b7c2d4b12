"""Rounds: what a worker does again and again until it is stopped, whatever comes of a single time.

run      a round every so often, and at once when woken; failures are counted, and logged when they begin and end
attempt  do one thing besides; what fails is counted and logged, and is not raised
quietly  the same of what has no rounds
Trouble  count the failures of a loop that is tighter, and log their beginning and their end
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger("keyturn")

T = TypeVar("T")


class Rounds:
    """Does one piece of work in rounds, which outlive its failures and our own bugs.

    Belongs to one event loop.
    """

    def __init__(self, work: Callable[[], Awaitable[object]], *, every_seconds: float, failing: str) -> None:
        """Do `work` every `every_seconds`; `failing` is what is logged when that fails."""
        self._work = work
        self._every_seconds = every_seconds
        self._failing = failing
        self._trouble = Trouble(failing)
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
                await self._round()
                woken = asyncio.create_task(self._woken.wait())
                await asyncio.wait({stopping, woken}, timeout=self._every_seconds, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopping.cancel()

    async def _round(self) -> None:
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 -- the rounds must outlive our own bugs
            self._count()
            self._trouble.met(error)
        else:
            self._trouble.over()

    async def attempt(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work` once; an error is counted and logged."""
        await quietly(self._failing, work, failed=self._count)

    def _count(self) -> None:
        self.failures += 1


class Trouble:
    """Counts failures of what is tried again and again; the log says when they begin and when they are over."""

    def __init__(self, failing: str) -> None:
        """Begin without any; `failing` is what is logged."""
        self._failing = failing
        self._lasts = False
        self.failures = 0

    def met(self, error: Exception) -> None:
        """Count an error; the first after a success is logged with its reason."""
        self.failures += 1
        if not self._lasts:
            self._lasts = True
            _log_failure(self._failing, error)

    def over(self) -> None:
        """It has worked."""
        if self._lasts:
            self._lasts = False
            _log.info("works again", was=self._failing)


async def quietly(
    failing: str, work: Callable[[], Awaitable[T]], *, failed: Callable[[], None] | None = None
) -> T | None:
    """Do `work` once; an error is not raised but logged as `failing`, told to `failed`, and answered with None."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 -- whoever goes on must outlive our own bugs
        _log_failure(failing, error)
    if failed is not None:
        failed()
    return None


def _log_failure(failing: str, error: Exception) -> None:
    if isinstance(error, KeyturnError):
        _log.warning(failing, code=error.code, reason=error.message)
    elif isinstance(error, TimeoutError):
        _log.warning(failing, reason="it took too long")
    else:
        _log.error(failing, exc_info=error)
