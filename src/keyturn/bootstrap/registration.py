"""Registers a worker in the registry of nodes: before it loads anything, and again when it was forgotten."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.storage import nodes
from keyturn.storage.rounds import quietly

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.storage.database import Database

DEREGISTER_SECONDS: Final = 3.0

_log = structlog.get_logger("keyturn")


class Registration:
    """Registers one worker; for one event loop."""

    def __init__(self, database: Database, node: str, resync: Callable[[], None]) -> None:
        """Register `node`; `resync` has everything loaded again."""
        self._database = database
        self._node = node
        self._resync = resync
        self._again: asyncio.Task[None] | None = None

    async def register(self) -> None:
        """Have this node waited for by revocations from now on."""
        label = f"{socket.gethostname()}/{os.getpid()}"[:128]
        await self._database.write(lambda t: nodes.register(t.connection, self._node, "server", label, t.now))

    def forgotten(self) -> None:
        """Register again and reload: the registry has lost this node."""
        if self._again is None or self._again.done():
            self._resync()
            self._again = asyncio.create_task(self._register_again(), name="register")

    async def deregister(self) -> None:
        """Have this node waited for no more; raises TimeoutError when the database does not answer."""
        async with asyncio.timeout(DEREGISTER_SECONDS):
            await self._database.write(lambda t: nodes.deregister(t.connection, self._node))

    async def _register_again(self) -> None:
        _log.warning("the registry has forgotten this node", node=self._node)
        await quietly("this node could not register again", self.register)
        # Again: what was loaded before the registration does not count.
        self._resync()
