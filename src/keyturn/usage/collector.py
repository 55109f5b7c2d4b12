"""The collector: counts verifications in memory and writes them behind the hot path.

    count -> entries by (version, outcome, minute, caller as told) -> flush -> one unit of work per 500 rows

A flush begins at most `FLUSH_SECONDS` after the first count, and later when the database is slow: writing usage takes
no more than a quarter of the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from keyturn.errors import KeyturnError
from keyturn.usage import rules, store
from keyturn.usage.rules import SECONDS, start_of
from keyturn.usage.store import CallerRow, RollupRow
from keyturn.wire.usage import Period

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.storage.database import Database
    from keyturn.verify.model import Request, VersionPolicy

FLUSH_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0
PRUNE_SECONDS: Final = 3600.0
ENTRIES_MAX: Final = 20_000
"""Distinct entries that wait; past it details are dropped first, then counts, which are counted as lost."""
KNOWN_MAX: Final = 65_536
UNIT_ROWS_MAX: Final = 500

_Key = tuple[str, str, int, "str | None", "str | None", "str | None", "str | None"]


class _Entry:
    __slots__ = ("at", "count", "first_at", "version")

    def __init__(self, version: VersionPolicy, at: float) -> None:
        self.version = version
        self.count = 0
        self.first_at = at
        self.at = at


class UsageCollector:
    """A sink of usage events; `count` is for one event loop, and costs about a microsecond."""

    def __init__(self, database: Database) -> None:
        """Write to `database`; nothing is written before `start`."""
        self._database = database
        self._entries: dict[_Key, _Entry] = {}
        self._known: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self.counted = 0
        self.written = 0
        self.lost = 0
        self.in_doubt = 0
        self.failures = 0

    def start(self) -> None:
        """Start flushing."""
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

    @property
    def waiting(self) -> int:
        """How many entries are not written yet."""
        return len(self._entries)

    def count(self, version: VersionPolicy, outcome: str, request: Request, at: float) -> None:
        """Count one verification of a key whose secret was proven."""
        path = request.path
        if path is not None and ("?" in path or "#" in path):
            path = rules.without_query(path)
        key = (version.id, outcome, int(at // 60), request.ip, request.user_agent, request.method, path)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._new_entry(key, version, at)
            if entry is None:
                return
        self.counted += 1
        entry.count += 1
        entry.at = max(entry.at, at)

    async def flush(self) -> bool:
        """Write everything counted so far; False when the database refused some of it, which is kept."""
        async with self._flushing:
            entries, self._entries = self._entries, {}
            for batch in _batches(entries):
                try:
                    await self._write(batch)
                except KeyturnError as error:
                    self.failures += 1
                    if error.code == "storage_unknown":
                        self._give_up(entries, batch)
                    for key, entry in entries.items():
                        self._put_back(key, entry)
                    return False
                for key, entry in batch:
                    self.written += entry.count
                    del entries[key]
        return True

    def _new_entry(self, key: _Key, version: VersionPolicy, at: float) -> _Entry | None:
        entries = self._entries
        if not entries:
            self._wake.set()
        elif len(entries) >= ENTRIES_MAX:
            key = (*key[:3], None, None, None, None)
            found = entries.get(key)
            if found is not None:
                return found
            if len(entries) >= 2 * ENTRIES_MAX:
                self.lost += 1
                return None
        entry = entries[key] = _Entry(version, at)
        return entry

    def _put_back(self, key: _Key, entry: _Entry) -> None:
        kept = self._entries.get(key) or self._new_entry(key, entry.version, entry.at)
        if kept is None:
            self.lost += entry.count - 1
            return
        kept.count += entry.count
        kept.first_at = min(kept.first_at, entry.first_at)
        kept.at = max(kept.at, entry.at)

    def _give_up(self, entries: dict[_Key, _Entry], batch: list[tuple[_Key, _Entry]]) -> None:
        # Written twice would be worse than not at all: these may be in the database.
        for key, entry in batch:
            self.in_doubt += entry.count
            del entries[key]

    async def _write(self, batch: list[tuple[_Key, _Entry]]) -> None:
        rollups = _rollups(batch)
        callers = _callers(batch)
        known = frozenset((row.version, row.caller) for row in callers if (row.version, row.caller) in self._known)
        committed = await self._database.write(
            lambda transaction: store.add(transaction.connection, rollups, callers, known)
        )
        for pair in committed.value:
            while len(self._known) >= KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self._known[pair] = None

    async def _run(self) -> None:
        clock = self._database.clock
        prune_at = clock.boottime() + PRUNE_SECONDS
        pause = FLUSH_SECONDS
        while not self._stopping.is_set():
            await _wait(self._wake, max(0.0, prune_at - clock.boottime()))
            await _wait(self._stopping, pause)
            self._wake.clear()
            started = clock.boottime()
            flushed = await self.flush()
            if not flushed:
                self._wake.set()
            pause = max(FLUSH_SECONDS, 3 * (clock.boottime() - started)) if flushed else RETRY_SECONDS
            if clock.boottime() >= prune_at:
                prune_at = clock.boottime() + PRUNE_SECONDS
                await self._prune()

    async def _prune(self) -> None:
        try:
            await self._database.write(lambda transaction: store.prune(transaction.connection, transaction.now))
        except KeyturnError:
            self.failures += 1


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _batches(entries: dict[_Key, _Entry]) -> Iterable[list[tuple[_Key, _Entry]]]:
    # In the order of the rows, so that two nodes that write the same ones never wait for each other in a circle.
    ordered = sorted(entries.items(), key=lambda item: (item[1].version.key_id, item[0][0]))
    for first in range(0, len(ordered), UNIT_ROWS_MAX):
        yield ordered[first : first + UNIT_ROWS_MAX]


def _rollups(batch: list[tuple[_Key, _Entry]]) -> list[RollupRow]:
    rows: dict[tuple[str, str, str, int, str], RollupRow] = {}
    for (version_id, outcome, minute, *_), entry in batch:
        version = entry.version
        for period in SECONDS:
            start = start_of(period, minute * SECONDS[Period.MINUTE])
            name = (version.key_id, version_id, str(period), start, outcome)
            row = rows.get(name)
            if row is None:
                row = rows[name] = RollupRow(*name, version.keyspace.workspace, version.keyspace.id)
            row.count += entry.count
    return [rows[name] for name in sorted(rows)]


def _callers(batch: list[tuple[_Key, _Entry]]) -> list[CallerRow]:
    rows: dict[tuple[str, str], CallerRow] = {}
    for (version_id, _, _, ip, agent, method, path), entry in batch:
        described = (rules.ip_network(ip), rules.user_agent(agent), rules.endpoint(method, path))
        caller = rules.caller_id(*described)
        row = rows.get((version_id, caller))
        if row is None:
            version = entry.version
            row = rows[version_id, caller] = CallerRow(
                version_id, caller, version.key_id, version.keyspace.workspace, entry.first_at, entry.at, *described
            )
        row.count += entry.count
        row.first_at = min(row.first_at, entry.first_at)
        row.at = max(row.at, entry.at)
    return [rows[name] for name in sorted(rows)]
