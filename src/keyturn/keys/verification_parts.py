"""The parts of verification, put together in the order in which they need each other.

replication = replicate(database, keyring)              before the confirmer and the follower, which report to it
parts = VerificationParts.of(replication, follower, …)  after them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from keyturn.keys.callers import CallerProofs, ProvenCallers
from keyturn.keys.lookup import Lookup
from keyturn.keys.rehash import Rehasher
from keyturn.keys.replication import Replication, StoredRecords
from keyturn.keys.slow_proofs import SlowProofs
from keyturn.keys.verification import VerifyService

if TYPE_CHECKING:
    from keyturn.access.door import Door, UnauthenticatedSink
    from keyturn.keys.ports import CaughtUp, UsageSink
    from keyturn.storage.database import Database
    from keyturn.storage.keyring import Keyring


def replicate(database: Database, keyring: Keyring) -> Replication:
    """Build what follows the change log on behalf of verification; call it on the event loop that serves."""
    clock = database.clock
    learns_time = database.dialect == "postgresql"  # SQLite's time is this process's own
    return Replication(StoredRecords(keyring), ProvenCallers(clock), clock, learns_time=learns_time)


@dataclass(frozen=True, slots=True)
class VerificationParts:
    """Verification of one worker, and what runs behind it."""

    service: VerifyService
    replication: Replication
    proofs: CallerProofs
    lookup: Lookup
    slow: SlowProofs
    rehasher: Rehasher

    @classmethod
    def of(
        cls,
        replication: Replication,
        follower: CaughtUp,
        *,
        database: Database,
        door: Door,
        usage: UsageSink,
        unauthenticated: UnauthenticatedSink,
    ) -> Self:
        """Put the parts together; `unauthenticated` is the same sink as the door's."""
        clock = database.clock
        source, callers = replication.source, replication.callers
        proofs = CallerProofs(door, source, replication.replica, callers, follower, unauthenticated, clock)
        lookup = Lookup(database, door, source, proofs, follower, clock)
        slow = SlowProofs(clock.boottime)
        rehasher = Rehasher(database)
        service = VerifyService(replication, callers, proofs, lookup, slow, rehasher, usage, clock)
        return cls(service, replication, proofs, lookup, slow, rehasher)

    def start(self) -> None:
        """Start what runs behind the hot path."""
        self.rehasher.start()

    async def stop(self) -> None:
        """Stop it; nothing that was acknowledged is lost."""
        await self.rehasher.stop()
        self.slow.close()
