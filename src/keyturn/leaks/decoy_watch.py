"""Whether a decoy was used: one elected worker looks, once a second.

    issued    a verification of it was counted, by a server, a gateway or a verifier in an application
    held      a read of it, allowed or denied, is on record

Nothing is asked on the way of a verification or a read: what shows a use is written down anyway.  A use becomes one
leaf, `system.decoy_tripped`, with the change of the decoy in one unit of work, so that it is told once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import structs

from keyturn.access.system import system_operation
from keyturn.kernel.clock import rfc3339
from keyturn.leaks import decoy_store as store
from keyturn.storage.leadership import Leadership
from keyturn.storage.rounds import Rounds
from keyturn.storage.transaction import ChangeKind
from keyturn.vault.paths import Path
from keyturn.wire.actions import Action
from keyturn.wire.decoys import DecoyKind, DecoyState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.audit.leaf import Detail
    from keyturn.leaks.decoy_store import Decoy, Use
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

ELECTION: Final = "decoy-watch"
LOOK_SECONDS: Final = 1.0
LEADER_SECONDS: Final = 10.0
STAND_AGAIN_SECONDS: Final = 3.0
KEYS_AT_ONCE: Final = 500

_log = structlog.get_logger("keyturn.leaks")


@dataclass(frozen=True, slots=True)
class DecoyHealth:
    """How the watcher of this worker is doing; the counts are its own."""

    leader: bool
    tripped: int
    failures: int
    """Rounds, and decoys of a round, that ended with an error and are tried again."""


class DecoyWatch:
    """Looks after the decoys of every workspace of one database."""

    def __init__(self, database: Database, holder: str) -> None:
        """Stand for election as `holder`, this worker's node id."""
        self._database = database
        self._leadership = Leadership(
            database,
            ELECTION,
            holder,
            seconds=LEADER_SECONDS,
            stand_again_seconds=STAND_AGAIN_SECONDS,
        )
        self._rounds = Rounds(self.look_once, every_seconds=LOOK_SECONDS, failing="decoys could not be looked after")
        self._tripped = 0

    @property
    def health(self) -> DecoyHealth:
        """How it is doing."""
        return DecoyHealth(self._leadership.is_held, self._tripped, self._rounds.failures)

    async def run(self, stop: asyncio.Event) -> None:
        """Look until stopped, and give the lead up."""
        await self._rounds.run(stop)
        await self._rounds.attempt(self._leadership.resign)

    async def look_once(self) -> int:
        """Look at every decoy; return how many were used since the last time."""
        now = self._database.clock.now()
        found = await self._database.read(partial(_used_decoys, now=now))
        if not found or not await self._leadership.lead():
            return 0
        tripped = 0
        for one in found:
            tripped += await self._put_on_record(one)
        self._tripped += tripped
        return tripped

    async def _put_on_record(self, one: Decoy) -> bool:
        try:
            return (await self._database.write(partial(_trip, seen=one))).value
        except Exception as error:  # noqa: BLE001 -- one decoy must not silence the others
            self._rounds.failures += 1
            _log.error("the use of a decoy could not be put on record", decoy=one.id, exc_info=error)
            return False


def _used_decoys(connection: Connection, now: float) -> list[Decoy]:
    decoys = store.watched(connection)
    keys = [one.key for one in decoys if one.kind is DecoyKind.ISSUED]
    counts: dict[str, int] = {}
    for start in range(0, len(keys), KEYS_AT_ONCE):
        counts |= store.verification_counts(connection, keys[start : start + KEYS_AT_ONCE])
    return [
        one
        for one in decoys
        if (counts.get(one.key, 0) > one.tripped_count if one.key else _use_of(connection, one, now) is not None)
    ]


def _use_of(connection: Connection, one: Decoy, now: float) -> Use | None:
    if one.kind is DecoyKind.ISSUED:
        return store.verifications_since(connection, one, now)
    return store.reads_since(connection, one, Path(one.secret).resource.name)


def _trip(transaction: Transaction, seen: Decoy) -> bool:
    """Put the use of a decoy on record, as it is now; False when another leader has done it meanwhile."""
    one = store.load_by_id(transaction.connection, seen.id)
    if one is None or one.state is DecoyState.RETIRED:
        return False
    use = _use_of(transaction.connection, one, transaction.now)
    if use is None:
        return False
    trip = structs.replace(use.trip, at=rfc3339(use.at))
    changed = replace(
        one,
        state=DecoyState.TRIPPED,
        tripped_count=use.count,
        first_tripped_at=one.first_tripped_at or use.at,
        last_tripped_at=use.at,
        last_trip=trip,
        seen_seq=use.seq,
        revision=one.revision + 1,
    )
    store.update_decoy(transaction.connection, changed)
    detail: dict[str, Detail] = {
        "kind": one.kind.value,
        "of": one.key or one.secret,
        "uses": use.count - one.tripped_count,
        "planted_at": one.planted_at,
        **{name: value for name in trip.__struct_fields__ if (value := getattr(trip, name))},
    }
    op = system_operation(transaction, one.workspace)
    op.record(Action.SYSTEM_DECOY_TRIPPED, one.resource, kind=ChangeKind.DECOY, entity=one.id, detail=detail)
    _log.warning("a decoy was used", decoy=one.name, workspace=one.workspace)
    return True
