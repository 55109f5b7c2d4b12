"""Whoever holds a key may ask whether it is one of ours, and report it: to hold it is proof enough.

    check     whether it is ours, and works; changes nothing, unless it is a decoy, whose use it is
    report    a finding; and, unless a leak policy of its workspace says otherwise, the key is revoked

Only keys of our own format are looked at, since their public id says which workspace they are of.  A wrong key is
answered like one that there never was.  Bounded for each network, as failed logins are, is showing keys that are not
ours, and reporting: who holds one key could have it written down any number of times.  Reports of one key follow one
another by a minute, whoever makes them; those in between are answered, and not filed again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from keyturn.audit.unauthenticated import source_network
from keyturn.errors import NotFoundError, ThrottledError
from keyturn.kernel import tokenformat
from keyturn.kernel.token_bucket import TokenBuckets
from keyturn.leaks.decoy_store import is_watched
from keyturn.leaks.matching import Question
from keyturn.storage.schema import issued_key, key_version
from keyturn.usage.noting import note_use
from keyturn.wire.certainty import Certainty
from keyturn.wire.leak_intakes import ShownKey
from keyturn.wire.leaks import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from keyturn.kernel.secret import Secret
    from keyturn.leaks.matching import Matching
    from keyturn.leaks.reporters import OutsideReports
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

SOURCE: Final = "possession"
WAIT_SECONDS: Final = 5.0
"""How long an answer waits for the revocation that it is about."""
LOOK_SECONDS: Final = 0.1
WAITING_MAX: Final = 16
"""How many answers wait at once; further ones say how it stands at that moment."""
AGAIN_SECONDS: Final = 60.0
"""For how long a report of the same key is not filed again."""
SHOWN_BURST: Final = 30.0
SHOWN_PER_SECOND: Final = 1.0
"""How often a network may show keys that are not ours, and report."""
CHECK_PATH: Final = "/leaked-keys/check"
REPORT_PATH: Final = "/leaked-keys/report"
"""What the use of a decoy is noted under, whether it was shown to the page or to a program's operation."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A key that was shown, and is ours."""

    workspace: str
    key: str
    version: str
    works: bool
    is_decoy: bool


class PossessionService:
    """What whoever holds a key may do about it; for one event loop."""

    def __init__(
        self,
        database: Database,
        matching: Matching,
        reports: OutsideReports,
        boottime: Callable[[], float],
        *,
        is_open: bool = True,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Look keys up with `matching`, and file them with `reports`; closed, there is nothing here."""
        self._is_open = is_open
        self._database = database
        self._matching = matching
        self._reports = reports
        self._boottime = boottime
        self._guessing = TokenBuckets[str](SHOWN_PER_SECOND, SHOWN_BURST, boottime)
        self._reporting = TokenBuckets[str](SHOWN_PER_SECOND, SHOWN_BURST, boottime)
        self._filing = TokenBuckets[str](1 / AGAIN_SECONDS, 1.0, boottime)
        self._waiting = 0
        self._wait_seconds = wait_seconds

    def require_open(self) -> None:
        """Raise NotFoundError when nobody is to ask."""
        if not self._is_open:
            raise NotFoundError("there is nothing here", hint="KEYTURN_LEAKED_KEYS=open lets holders report keys")

    async def check(self, key: Secret, *, ip: str | None = None) -> ShownKey:
        """Tell whether a key is ours and works; raises ThrottledError for a network that has asked too often."""
        self.require_open()
        network = source_network(ip)
        _admit(network, self._guessing)
        found = await self._seen(key, ip, CHECK_PATH)
        # Who shows keys of ours is let go on: bounded is guessing.
        if found is None:
            self._guessing.owe(network)
            return ShownKey(ours=False)
        return ShownKey(ours=True, works=found.works, id=found.version)

    async def report(self, key: Secret, *, where: str = "", ip: str | None = None) -> ShownKey:
        """Report a key; answers when it is revoked, if it is to be, or after 5 seconds; raises like `check`."""
        self.require_open()
        network = source_network(ip)
        _admit(network, self._guessing, self._reporting)
        # Counted before anything is awaited: requests at once are as many as those one after another.
        self._reporting.owe(network)
        found = await self._seen(key, ip, REPORT_PATH)
        if found is None:
            self._guessing.owe(network)
            return ShownKey(ours=False)
        works, version = found.works, found.version
        if self._filing.take(version):
            try:
                filed = await self._reports.reported_outside(
                    found.workspace,
                    origin=Origin.POSSESSION,
                    presented=key,
                    place={"path": where},
                    source=SOURCE,
                    ip=ip,
                )
            except BaseException:
                self._filing.forget(version)
                raise
            if works and filed.is_ending:
                works = await self._still_works(key)
        return ShownKey(ours=True, works=works, id=version, reported=True, revoked=not works)

    async def _still_works(self, key: Secret) -> bool:
        if self._waiting >= WAITING_MAX:
            return True
        self._waiting += 1
        try:
            until = self._boottime() + self._wait_seconds
            while self._boottime() < until:
                found = await self._find(key)
                if found is None or not found.works:
                    return False
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._waiting -= 1
        return True

    async def _seen(self, key: Secret, ip: str | None, path: str) -> _Found | None:
        """Find a key that somebody shows; one that is a decoy is an alarm, as any use of it."""
        found = await self._find(key)
        if found is not None and found.is_decoy:
            # Each is written down, so they are bounded like keys that are not ours.
            self._guessing.owe(source_network(ip))
            await self._database.write(partial(_note_use, found=found, ip=ip, path=path))
        return found

    async def _find(self, key: Secret) -> _Found | None:
        text = key.reveal().strip()
        version = tokenformat.version_id_of(text)
        if version is None:
            return None
        question = Question(tokenformat.sha256(text), version, len(text))

        def look(connection: Connection) -> _Found | None:
            workspace = _workspace_of(connection, version)
            if workspace is None:
                return None
            answer = self._matching.match(connection, workspace, [question], self._database.clock.now()).get(0)
            if answer is None or answer.known.certainty is not Certainty.OWN:
                return None
            key_id = answer.known.key
            return _Found(workspace, key_id, version, answer.known.works, is_watched(connection, workspace, key_id))

        return await self._database.read(look)


def _admit(network: str, *bounds: TokenBuckets[str]) -> None:
    wait = max(bound.wait_seconds(network) for bound in bounds)
    if wait:
        message = "too many keys were shown from this network"
        raise ThrottledError(message, retry_after_seconds=wait, hint="try again later")


def _note_use(transaction: Transaction, found: _Found, ip: str | None, path: str) -> None:
    """Count the use of a decoy, where those of verifications are; the watch takes it from there."""
    note_use(transaction, found.workspace, found.key, found.version, ip=ip, method="POST", path=path)


def _workspace_of(connection: Connection, version: str) -> str | None:
    found = connection.execute(
        select(issued_key.c.workspace)
        .join(key_version, key_version.c.key == issued_key.c.id)
        .where(key_version.c.id == version)
    ).scalar_one_or_none()
    return None if found is None else str(found)
