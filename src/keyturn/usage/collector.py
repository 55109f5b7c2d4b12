"""The collector: counts verifications in memory and writes them behind the hot path.

    count -> entries by (version, outcome, minute, caller as told)
               |-- flush: rollups and dimensions, `FLUSH_SECONDS` after the first count, or later
               `-- last used: with the first flush that sees a caller, then at most once in `LAST_USED_SECONDS`

A flush comes later when there is much to write: writing takes no more than a twentieth of the time, as long as that
keeps nothing waiting for more than `LATEST_SECONDS`, and never more than a quarter.  What is counted again and again
meanwhile is one entry still, so that a busy node writes fewer rows for each verification.

It is written in units with a number each, and the node's number is changed in the same transaction: a unit whose
outcome is unknown is sent again under its number, and done once.

    counted = written + waiting + in doubt + lost          at any time
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from keyturn.errors import KeyturnError
from keyturn.kernel.ids import new_id
from keyturn.storage.rounds import Trouble
from keyturn.usage import places, rules, store
from keyturn.usage.places import Places
from keyturn.usage.store import CallerRow
from keyturn.usage.tally import Tally, record_end, recover

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Delete

    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction
    from keyturn.usage.places import Group, Place, Where
    from keyturn.usage.store import CountedRow
    from keyturn.verify.model import Request, VersionPolicy

FLUSH_SECONDS: Final = 0.1
LATEST_SECONDS: Final = 1.0
LAST_USED_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
PRUNE_SECONDS: Final = 3600.0
ENTRIES_MAX: Final = 20_000
"""Distinct entries that wait; past it details are dropped first, then counts, which are counted as lost."""
KNOWN_MAX: Final = 65_536
UNIT_ROWS_MAX: Final = 250
"""Rows of one transaction: others that write do not wait for a whole flush."""

_Key = tuple[str, str, int, "str | None", "str | None", "str | None", "str | None", "str | None"]
"""Version, outcome, minute, and what was told of the caller."""


class _Entry:
    __slots__ = ("at", "count", "first_at", "version")

    def __init__(self, version: VersionPolicy, at: float) -> None:
        self.version = version
        self.count = 0
        self.first_at = at
        self.at = at


@dataclass(slots=True)
class _Unit:
    """What is written in one transaction, under one number."""

    number: int
    batch: list[tuple[_Key, _Entry]]
    count: int


class UsageCollector:
    """A sink of usage events; `count` is for one event loop, and costs about a microsecond."""

    def __init__(self, database: Database, node: str | None = None, folder: Path | None = None) -> None:
        """Write to `database` as `node`; nothing is written before `start`.

        With a `folder`, what is counted is also kept in a file there, so that nothing is lost uncounted.
        """
        self._database = database
        self._node = node or new_id("nod", database.clock.now())
        self._folder = folder
        self.tally = Tally()
        self._cells = self.tally.cells
        self._places = Places()
        self._number = 0
        self._doubtful: _Unit | None = None
        self._entries: dict[_Key, _Entry] = {}
        self._callers: dict[tuple[str, str], CallerRow] = {}
        self._callers_due = 0.0
        self._known: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self.lost = 0
        self.recovered = 0
        self._trouble = Trouble("usage could not be written")

    def start(self) -> None:
        """Start flushing, and to keep the tally."""
        self.keep()
        self._task = asyncio.create_task(self._run(), name="keyturn-usage")

    async def stop(self) -> None:
        """Write what is left and stop; what cannot be written is counted as lost."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None
        await self.flush()
        self.lost += sum(entry.count for entry in self._entries.values())
        self._entries.clear()
        self.tally.close(settled=await self._record_end())
        self._cells = self.tally.cells

    def keep(self) -> None:
        """Keep the tally in a file from now on; the first step of `start`."""
        if self._folder is not None:
            self.tally.keep(self._folder, self._node)
            self._cells = self.tally.cells

    async def recover(self) -> None:
        """Put on record what processes that were killed have lost; once, before or after `start`."""
        if self._folder is not None:
            self.recovered += await recover(self._database, self._folder)

    @property
    def failures(self) -> int:
        """How often something could not be written, whether it was later or not."""
        return self._trouble.failures

    @property
    def counted(self) -> int:
        """How many verifications were counted."""
        return self._cells[0]

    @property
    def written(self) -> int:
        """How many of them are in the database."""
        return self._cells[1]

    @property
    def in_doubt(self) -> int:
        """How many are in a unit whose outcome is not known yet."""
        return 0 if self._doubtful is None else self._doubtful.count

    @property
    def waiting(self) -> int:
        """How many entries are not written yet."""
        return len(self._entries)

    def count(self, version: VersionPolicy, outcome: str, request: Request, at: float) -> None:
        """Count one verification of a key whose secret was proven."""
        path = request.path
        if path is not None and ("?" in path or "#" in path):
            path = rules.without_query(path)
        key = (
            version.id,
            outcome,
            int(at // 60),
            request.ip,
            request.user_agent,
            request.method,
            path,
            request.country,
        )
        self._cells[0] += 1
        entry = self._entries.get(key)
        if entry is None:
            entry = self._new_entry(key, version, at)
            if entry is None:
                return
        entry.count += 1
        if at > entry.at:  # noqa: PLR1730 -- max() costs a call here
            entry.at = at

    async def flush(self) -> bool:
        """Write everything counted so far; False when the database refused some of it, which is kept."""
        async with self._flushing:
            if self._doubtful is not None and not await self._write(self._doubtful):
                return False
            entries, self._entries = self._entries, {}
            # In the order of the rows, so that two nodes that write the same ones never wait in a circle.
            ordered = sorted(entries.items(), key=lambda item: (item[1].version.key_id, item[0][:3]))
            for first in range(0, len(ordered), UNIT_ROWS_MAX):
                batch = ordered[first : first + UNIT_ROWS_MAX]
                self._number += 1
                if not await self._write(_Unit(self._number, batch, sum(entry.count for _, entry in batch))):
                    for key, entry in ordered[first + UNIT_ROWS_MAX :]:
                        self._put_back(key, entry)
                    return False
            return await self._flush_callers()

    # --- counting -------------------------------------------------------------------------------------------------

    def _new_entry(self, key: _Key, version: VersionPolicy, at: float) -> _Entry | None:
        entries = self._entries
        if not entries:
            self._wake.set()
        elif len(entries) >= ENTRIES_MAX:
            key = (*key[:3], None, None, None, None, None)
            found = entries.get(key)
            if found is not None:
                return found
            if len(entries) >= 2 * ENTRIES_MAX:
                self.lost += 1
                return None
        entry = entries[key] = _Entry(version, at)
        return entry

    def _note_caller(self, key: _Key, entry: _Entry) -> None:
        if rules.is_shadow(key[1]):
            return
        caller, network, agent, endpoint = rules.describe(*key[3:7])
        row = self._callers.get((key[0], caller))
        if row is None:
            if len(self._callers) >= ENTRIES_MAX:
                return
            version = entry.version
            if (key[0], caller) not in self._known:
                self._callers_due = 0.0
            row = self._callers[key[0], caller] = CallerRow(
                version=key[0],
                caller=caller,
                key=version.key_id,
                workspace=version.keyspace.workspace,
                first_at=entry.first_at,
                at=entry.at,
                ip_network=network,
                user_agent=agent,
                endpoint=endpoint,
            )
        row.count += entry.count
        row.first_at = min(row.first_at, entry.first_at)
        row.at = max(row.at, entry.at)

    # --- writing --------------------------------------------------------------------------------------------------

    async def _write(self, unit: _Unit) -> bool:
        """Write a unit once; False when the database refused it, or has not said what became of it.

        A unit that our own bugs keep from being written is counted as lost, so that it keeps nothing else from it.
        """
        try:
            filed = await self._commit(unit)
        except KeyturnError as error:
            self._trouble.met(error)
            if error.code == "storage_unknown":
                # It may be in the database, or get there yet: it is asked again under its number.
                self._doubtful = unit
            else:
                self._doubtful = None
                for key, entry in unit.batch:
                    self._put_back(key, entry)
            return False
        except Exception as error:  # noqa: BLE001 -- what counts must outlive our own bugs
            self._trouble.met(error)
            self._doubtful = None
            self.lost += unit.count
            return True
        self._trouble.over()
        self._doubtful = None
        self._cells[1] += unit.count
        self._places.remember(*filed)
        for key, entry in unit.batch:
            self._note_caller(key, entry)
        return True

    async def _commit(self, unit: _Unit) -> tuple[dict[Where, Place], dict[Group, frozenset[str]]]:
        """Write the rows of a unit; return where counts of its callers belong from now on."""
        rows: list[CountedRow] = []
        wanted: list[tuple[int, Where]] = []
        for key, entry in unit.batch:
            version = entry.version
            where = (version.keyspace.id, version.key_id, key[2] * 60 // 3600 * 3600, key[3:])
            place = self._places.find(where)
            if place is None:
                wanted.append((len(rows), where))
            rows.append(_counted_row(key, entry, place or places.NOWHERE))
        return (await self._database.write(partial(_add_counts, self._node, unit, rows, wanted))).value

    async def _record_end(self) -> bool:
        """Put on record what this process has lost; True when its file is needed no more."""
        if self._doubtful is not None:
            return False
        counted, written = self._cells
        try:
            await self._database.write(lambda t: record_end(t.connection, self._node, counted, written, t.now))
        except KeyturnError as error:
            self._trouble.met(error)
            return False
        return True

    def _put_back(self, key: _Key, entry: _Entry) -> None:
        kept = self._entries.get(key) or self._new_entry(key, entry.version, entry.at)
        if kept is None:
            self.lost += entry.count - 1
            return
        kept.count += entry.count
        kept.first_at = min(kept.first_at, entry.first_at)
        kept.at = max(kept.at, entry.at)

    async def _flush_callers(self) -> bool:
        now = self._database.clock.boottime()
        if not self._callers or (now < self._callers_due and not self._stopping.is_set()):
            return True
        self._callers_due = now + LAST_USED_SECONDS
        noted, self._callers = self._callers, {}
        rows = [noted[name] for name in sorted(noted)]
        for first in range(0, len(rows), UNIT_ROWS_MAX):
            batch = rows[first : first + UNIT_ROWS_MAX]
            known = frozenset(pair for row in batch if (pair := (row.version, row.caller)) in self._known)
            try:
                committed = await self._database.write(partial(_add_callers, batch, known))
            except KeyturnError as error:
                self._trouble.met(error)
                self._callers = {(row.version, row.caller): row for row in rows[first:]} | self._callers
                return False
            for pair in committed.value:
                while len(self._known) >= KNOWN_MAX:
                    del self._known[next(iter(self._known))]
                self._known[pair] = None
        return True

    async def _run(self) -> None:
        clock = self._database.clock
        prune_at = clock.boottime() + PRUNE_SECONDS
        pause = FLUSH_SECONDS
        while not self._stopping.is_set():
            due = self._callers_due if self._callers else prune_at
            await _wait(self._wake, max(0.0, due - clock.boottime()))
            await _wait(self._stopping, pause)
            self._wake.clear()
            started = clock.boottime()
            try:
                flushed = await self.flush()
            except Exception as error:  # noqa: BLE001 -- what counts must outlive our own bugs
                self._trouble.met(error)
                flushed = False
            if not flushed:
                self._wake.set()
            pause = pause_after(clock.boottime() - started) if flushed else RETRY_SECONDS
            if clock.boottime() >= prune_at:
                prune_at = clock.boottime() + PRUNE_SECONDS
                await self._prune()

    async def _prune(self) -> None:
        for step in store.prune_steps(self._database.clock.now()):
            try:
                await self._database.write(partial(_execute, step))
            except KeyturnError as error:
                self._trouble.met(error)
                return


def pause_after(seconds: float) -> float:
    """Return how long counts gather after a flush that took so long."""
    return max(FLUSH_SECONDS, min(19 * seconds, LATEST_SECONDS), 3 * seconds)


def _execute(step: Delete, transaction: Transaction) -> None:
    transaction.connection.execute(step)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _counted_row(key: _Key, entry: _Entry, place: Place) -> CountedRow:
    version = entry.version
    keyspace = version.keyspace
    return (
        version.key_id,
        key[0],
        key[2] * 60,
        key[1],
        keyspace.workspace,
        keyspace.id,
        entry.count,
        version.owner,
        *place,
    )


def _add_counts(
    node: str, unit: _Unit, rows: list[CountedRow], wanted: list[tuple[int, Where]], transaction: Transaction
) -> tuple[dict[Where, Place], dict[Group, frozenset[str]]]:
    connection = transaction.connection
    if not store.advance(connection, node, unit.number, unit.count, transaction.now):
        return {}, {}
    decided, full = places.decide(connection, {where: None for _, where in wanted})
    for index, where in wanted:
        rows[index] = (*rows[index][: -len(places.NOWHERE)], *decided[where])
    store.add_counts(connection, rows)
    return decided, full


def _add_callers(
    rows: list[CallerRow], known: frozenset[tuple[str, str]], transaction: Transaction
) -> list[tuple[str, str]]:
    return store.add_callers(transaction.connection, rows, known)
