"""Threads for drivers that block: a few of their own per kind, so that what hangs delays no other kind.

The sources of one kind share them, so a connector sees to it that no call outlasts its session.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS: Final = 64


class Threads:
    """Runs calls in threads of its own; the first call starts the first thread."""

    def __init__(self, name: str) -> None:
        """Name the threads."""
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix=name)

    async def run(self, call: Callable[..., T], *given: Any) -> T:  # noqa: ANN401 -- what the call takes
        """Run a call and return what it returned; giving up does not end it, the caller has to."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *given))
