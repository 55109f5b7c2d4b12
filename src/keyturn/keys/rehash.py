"""Rehashing: versions under an old pepper, or with a slow foreign digest, move to the newest pepper when they are used.

    verified secret -> queue -> one unit of work: digest unchanged since? -> new digest + change row of the key

The secret itself goes no further than the event loop: what waits is its SHA-256.  A unit that finds another digest
than the one that was proven changes nothing, so any number of nodes may try.  No audit leaf is left: nothing that
anybody may do has changed.  What does not fit the queue is tried again at the next use.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from keyturn.kernel.tokenformat import digest, sha256
from keyturn.keys import keyspace_store
from keyturn.keys.records import PEPPER
from keyturn.storage.rounds import Trouble
from keyturn.storage.schema import key_version, sealed_key
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.verify.rules import FAST_KIND

if TYPE_CHECKING:
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction
    from keyturn.verify.model import VersionPolicy
    from keyturn.verify.standing import KeyspacePolicy

QUEUE_MAX: Final = 1024
BATCH_MAX: Final = 32
PAUSE_SECONDS: Final = 0.05
"""Between batches, so that moving many keys leaves the database to others."""


@dataclass(frozen=True, slots=True, repr=False)
class _Waiting:
    version: VersionPolicy
    hashed: bytes


def outdated(version: VersionPolicy) -> bool:
    """Tell whether a version's digest is of a slow kind or under another pepper than the newest."""
    peppers = version.keyspace.peppers
    standing = version.standing
    return standing.kind != FAST_KIND or (len(peppers) > 1 and standing.pepper != max(peppers))


class Rehasher:
    """Moves outdated digests behind the hot path; for one event loop."""

    def __init__(self, database: Database) -> None:
        """Write to `database`; nothing runs before `start`."""
        self._database = database
        self._waiting: dict[str, _Waiting] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.rehashed = 0
        self.trouble = Trouble("digests cannot be moved to the newest pepper")

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name="keyturn-rehash")

    async def stop(self) -> None:
        """Stop; what still waits is tried again at its next use."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def offer(self, version: VersionPolicy, presented: str) -> None:
        """Take note of a version whose secret was just proven; cheap, and dropped when too many wait."""
        if version.id not in self._waiting and len(self._waiting) < QUEUE_MAX:
            self._waiting[version.id] = _Waiting(version, sha256(presented))
            self._wake.set()

    async def drain(self) -> None:
        """Rehash everything that waits now."""
        while self._waiting:
            batch = list(self._waiting.values())[:BATCH_MAX]
            try:
                committed = await self._database.write(partial(_rehash, batch))
                self.rehashed += committed.value
            except Exception as error:  # noqa: BLE001 -- logged; what failed is tried again at its next use
                self.trouble.met(error)
            else:
                self.trouble.over()
            for done in batch:
                self._waiting.pop(done.version.id, None)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.drain()
            await asyncio.sleep(PAUSE_SECONDS)


def _rehash(batch: list[_Waiting], transaction: Transaction) -> int:
    moved = 0
    for waiting in batch:
        version = waiting.version
        newest = max(version.keyspace.peppers)
        if _current_pepper(transaction, version.keyspace) != newest:
            continue
        changed = transaction.connection.execute(
            update(key_version)
            .where(key_version.c.id == version.id, key_version.c.digest == version.digest)
            .values(
                digest=digest(version.keyspace.peppers[newest], waiting.hashed),
                digest_kind=FAST_KIND,
                pepper=newest,
                lookup=None,
            )
        ).rowcount
        if changed:
            transaction.append(Entry(version.keyspace.workspace, ChangeKind.KEY, version.key_id))
            moved += 1
    return moved


def _current_pepper(transaction: Transaction, keyspace: KeyspacePolicy) -> int | None:
    # The shared lock keeps the pepper from being retired, for want of versions, while one is moved to it.
    keyspace_store.load_keyspace(transaction.connection, keyspace.workspace, keyspace.name, share=True)
    return transaction.connection.execute(
        select(sealed_key.c.number).where(
            sealed_key.c.workspace == keyspace.workspace,
            sealed_key.c.purpose == PEPPER,
            sealed_key.c.path == keyspace.id,
            sealed_key.c.state == "current",
        )
    ).scalar()
