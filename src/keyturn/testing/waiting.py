"""Waiting for what must come to pass, and never for a time: how fast a machine is, is no property of a program.

The patience is far more than anything takes; only a test that fails ever waits so long.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE_SECONDS: Final = 120.0
LOOK_EVERY_SECONDS: Final = 0.05


def until(condition: Callable[[], object], seconds_max: float = PATIENCE_SECONDS) -> bool:
    """Wait until something holds; False when it never did."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY_SECONDS)
    return True


def eventually(look: Callable[[], Any], seconds_max: float = PATIENCE_SECONDS) -> Any:  # noqa: ANN401 -- what is looked for
    """Return what something becomes, as soon as it is true; raises AssertionError when it never is."""
    deadline = time.monotonic() + seconds_max
    while not (found := look()):
        if time.monotonic() > deadline:
            msg = "it never became true"
            raise AssertionError(msg)
        time.sleep(LOOK_EVERY_SECONDS)
    return found


async def until_async(condition: Callable[[], object], seconds_max: float = PATIENCE_SECONDS) -> None:
    """Wait, on the event loop, until something holds; raises TimeoutError when it never does."""
    async with asyncio.timeout(seconds_max):
        while not condition():  # noqa: ASYNC110 -- it may happen in a thread or in another program
            await asyncio.sleep(0.01)
