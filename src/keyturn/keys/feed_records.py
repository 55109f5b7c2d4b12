"""The records that polls answer with: read once, however many verifiers ask for the same change."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn.kernel.ids import is_id
from keyturn.keys import plan_records, records
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.replication import RemovedRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.keys.news import News
    from keyturn.storage.database import Database
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.policy import KeyRecord, KeyspaceRecord, OwnerRecord, PlanRecord

KEPT: Final = 4096

Name = tuple[ChangeKind, str]
Wanted = dict[Name, int]
"""Kind and id of what changed, with the number of its last change."""


@dataclass(slots=True)
class Found:
    """Current state, by kind."""

    keyspaces: list[KeyspaceRecord] = field(default_factory=list)
    plans: list[PlanRecord] = field(default_factory=list)
    owners: list[OwnerRecord] = field(default_factory=list)
    keys: list[KeyRecord] = field(default_factory=list)
    removed: list[RemovedRecord] = field(default_factory=list)


class FeedRecords:
    """Reads records and keeps the last ones; for one event loop."""

    def __init__(self, database: Database, keyring: Keyring, news: News) -> None:
        """Read from `database`, as of what `news` has come to at least."""
        self._database = database
        self._keyring = keyring
        self._news = news
        self._kept: dict[Name, tuple[str, int, Any]] = {}
        self._reading = asyncio.Lock()

    async def current(self, workspace: str, keyspaces: frozenset[str], wanted: Wanted) -> Found:
        """Return the state of what is wanted, now or at its last change at the earliest, and only what may be seen."""
        # A management token is a key that no verifier sees.
        names = [name for name in wanted if not is_id("tok", name[1])]
        found: dict[Name, Any] = {}
        if names:
            async with self._reading:
                found = await self._read(names, wanted)
        answer = Found()
        for name in names:
            _add(answer, name, found[name], workspace, keyspaces)
        return answer

    async def _read(self, names: list[Name], wanted: Wanted) -> dict[Name, Any]:
        log_id, as_of = self._news.log_id, self._news.applied
        found: dict[Name, Any] = {}
        missing: list[Name] = []
        for name in names:
            kept = self._kept.get(name)
            if kept is not None and kept[0] == log_id and kept[1] >= wanted[name]:
                found[name] = kept[2]
            else:
                missing.append(name)
        if not missing:
            return found

        def work(connection: Connection) -> dict[Name, Any]:
            return {name: _load(connection, self._keyring, name) for name in missing}

        read = await self._database.read(work)
        while self._kept and len(self._kept) + len(read) > KEPT:
            del self._kept[next(iter(self._kept))]
        for name, record in read.items():
            self._kept.pop(name, None)
            self._kept[name] = (log_id, as_of, record)
        return found | read


def _load(connection: Connection, keyring: Keyring, name: Name) -> Any:  # noqa: ANN401 -- a record of any kind
    kind, entity = name
    if kind is ChangeKind.KEYSPACE:
        return records.load_keyspace_record(connection, keyring, entity)
    if kind is ChangeKind.PLAN:
        return plan_records.load_plan(connection, entity)
    if kind is ChangeKind.OWNER:
        return plan_records.load_owner(connection, entity)
    return records.load_record(connection, entity)


def _add(
    answer: Found,
    name: Name,
    record: Any,  # noqa: ANN401 -- a record of any kind
    workspace: str,
    keyspaces: frozenset[str],
) -> None:
    kind, entity = name
    if record is None:
        answer.removed.append(RemovedRecord(str(kind), entity))
    elif kind is ChangeKind.KEYSPACE:
        if entity in keyspaces and not record.system:
            answer.keyspaces.append(record)
    elif kind is ChangeKind.KEY:
        if record.keyspace in keyspaces:
            answer.keys.append(record)
    elif record.workspace == workspace:
        (answer.plans if kind is ChangeKind.PLAN else answer.owners).append(record)
