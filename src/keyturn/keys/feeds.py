"""Feeds: what a verifier in somebody else's process is loaded and kept in step from.

    register -> snapshot, page by page -> changes, long poll after long poll
                                          confirm, every few seconds, on its own

Who may replicate is decided by the database: at registration, with every page, with every confirm, and for a poll
whenever a change may have touched anybody's rights.  What is handed out is only of keyspaces that the caller holds
`keyspace.replicate` on, never of a system keyspace, and of the plans and owners of its workspace.

A confirm is authorised and stored in one unit of work, and reads the head after that is committed; who has lost the
right is refused, so it cannot become fresh again.  Confirms that arrive together share a commit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.access.caller import Resource
from keyturn.errors import CapError, ForbiddenError, GoneError, InputError
from keyturn.kernel.ids import new_id
from keyturn.kernel.match import matches
from keyturn.kernel.secret import random_bytes
from keyturn.keys import keyspace_store, plan_records, records
from keyturn.keys.feed_records import FeedRecords, Wanted
from keyturn.storage import nodes
from keyturn.storage.change_log import read_changes, read_head
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.replication import (
    WAIT_SECONDS_MAX,
    ConfirmedReplica,
    RegisteredVerifier,
    ReplicaChanges,
    ReplicaSnapshot,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Caller, Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.keys.news import News
    from keyturn.storage.change_log import Change
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.replication import ConfirmReplica, RegisterVerifier

PAGE: Final = 2000
VERIFIERS_MAX: Final = 5000
"""How many verifiers of one workspace may be registered at once."""

GATHER_SECONDS: Final = 0.2
"""How long news that does not concern the caller, and that nobody waits for, is held back."""

RIGHTS_SECONDS: Final = 5.0
RIGHTS_MAX: Final = 4096
KEYSPACES_READ: Final = 10_000
_RELEVANT: Final = frozenset({ChangeKind.KEYSPACE, ChangeKind.KEY, ChangeKind.PLAN, ChangeKind.OWNER})


@dataclass(frozen=True, slots=True)
class Rights:
    """What a caller may replicate, as the database had it at `seq` of a log."""

    workspace: str
    keyspaces: frozenset[str]
    log_id: str
    seq: int
    until: float
    """Boottime; a remembered answer is not used after it."""


class ReplicaService:
    """Registers verifiers and feeds them; for one event loop."""

    def __init__(self, door: Door, keyring: Keyring, news: News, draining: asyncio.Event) -> None:
        """Serve from the database and from `news`; every poll ends once `draining` is set and `news` is woken."""
        self._door = door
        self._keyring = keyring
        self._news = news
        self._draining = draining
        self._records = FeedRecords(door.database, keyring, news)
        self._known: dict[bytes, Rights] = {}
        self._hash_key = random_bytes(32)

    async def register(self, credentials: Credentials, asked: RegisterVerifier) -> RegisteredVerifier:
        """Register a verifier: from now on a change is effective only once it has applied it, or must have stopped."""

        def work(op: Operation) -> RegisteredVerifier:
            found = _allowed(op, asked.keyspaces)
            if nodes.count_verifiers(op.connection, op.workspace) >= VERIFIERS_MAX:
                raise CapError(
                    f"{VERIFIERS_MAX} verifiers of this workspace are registered",
                    hint="those that stopped without saying so are forgotten after a day",
                )
            node = new_id("nod", op.now)
            nodes.register(
                op.connection,
                node,
                nodes.VERIFIER,
                asked.label,
                op.now,
                workspace=op.workspace,
                principal=op.caller.principal,
            )
            detail: dict[str, Detail] = {"label": asked.label, "keyspaces": [one.name for one in found]}
            op.record(Action.KEYSPACE_REPLICATE, f"node/{node}", kind=ChangeKind.AUDIT, entity="", detail=detail)
            return RegisteredVerifier(node, read_head(op.connection).log_id)

        return (await self._door.write(credentials, work)).value

    async def deregister(self, credentials: Credentials, node: str) -> bool:
        """Forget a verifier of the caller's own, which must have stopped answering; any other is left alone."""

        def work(op: Operation) -> bool:
            if not nodes.deregister(op.connection, node, principal=op.caller.principal):
                op.unchanged()
                return False
            op.record(
                Action.KEYSPACE_REPLICATE,
                f"node/{node}",
                kind=ChangeKind.AUDIT,
                entity="",
                detail={"registered": False},
            )
            return True

        return (await self._door.write(credentials, work)).value

    async def confirm(self, credentials: Credentials, asked: ConfirmReplica) -> ConfirmedReplica:
        """Store how far a verifier has applied the log, and return what that proves."""

        def work(op: Operation) -> tuple[nodes.Confirmation, float, tuple[str, ...]]:
            found = _allowed(op, asked.keyspaces)
            stored = nodes.confirm(
                op.connection, asked.node, asked.log_id, asked.applied, op.now, principal=op.caller.principal
            )
            op.unchanged()
            bound = max(one.stale_after_seconds for one in found)
            ends = [end - op.now for end in _ends(op.caller) if end > op.now]
            return stored, min([bound, *ends]), tuple(one.id for one in found)

        stored, fresh_for, allowed = (await self._door.write(credentials, work)).value
        # After the commit: a change that this head does not show will find what was stored.
        head = await self._door.database.head()
        return ConfirmedReplica(
            known=stored.known,
            log_id=head.log_id,
            head=head.seq,
            database_time=stored.database_time,
            fresh_for=fresh_for,
            allowed=allowed,
        )

    async def snapshot(
        self, credentials: Credentials, keyspaces: Sequence[str], cursor: str | None = None
    ) -> ReplicaSnapshot:
        """Return a page of everything; the pages after the first are read later, and are followed from the first."""

        def work(op: Operation) -> ReplicaSnapshot:
            found = _allowed(op, keyspaces)
            ids = tuple(sorted(one.id for one in found))
            head = read_head(op.connection)
            if cursor is None:
                return ReplicaSnapshot(
                    log_id=head.log_id,
                    seq=head.seq,
                    allowed=ids,
                    keyspaces=tuple(
                        record
                        for one in ids
                        if (record := records.load_keyspace_record(op.connection, self._keyring, one)) is not None
                    ),
                    plans=tuple(plan_records.load_plans(op.connection, op.workspace)),
                    next_cursor="o:",
                )
            return _page(op, head.log_id, head.seq, ids, cursor)

        return await self._door.read(credentials, work)

    async def changes(
        self, credentials: Credentials, *, log_id: str, after: int, wait_seconds: float, keyspaces: Sequence[str]
    ) -> ReplicaChanges:
        """Wait for news after `after` and return what it is about, as it is now; nothing new when the wait is over.

        Raises GoneError when that log is no longer followed, or no longer reaches back so far.
        """
        boottime = self._door.database.clock.boottime
        rights = await self._rights(credentials, keyspaces)
        began = boottime()
        deadline = began + min(wait_seconds, WAIT_SECONDS_MAX)
        news = self._news
        while True:
            if news.log_id and news.log_id != log_id:
                raise GoneError("another change log is followed now", hint="load a snapshot and follow from it")
            now = boottime()
            over = now >= deadline or self._draining.is_set()
            if news.log_id and news.applied > after:
                changes, seq, awaited = *await self._since(log_id, after), news.awaited
                concerned = _concerned(changes, rights.workspace)
                if news.rights_changed(rights.workspace, rights.seq):
                    rights, concerned = await self._rights(credentials, keyspaces, again=True), True
                if over or concerned or awaited > after or now >= began + GATHER_SECONDS:
                    return await self._answer(rights, log_id, changes, seq, awaited)
            if over:
                return ReplicaChanges(log_id, after, news.awaited, tuple(sorted(rights.keyspaces)))
            until = min(deadline, began + GATHER_SECONDS) if news.applied > after else deadline
            await news.wait(max(0.0, until - boottime()))

    # --- what a poll needs ----------------------------------------------------------------------------------------

    async def _since(self, log_id: str, after: int) -> tuple[Sequence[Change], int]:
        """Return changes after a cursor and the number they reach to, from memory or from the database."""
        kept = self._news.since(after)
        if kept is not None:
            cut = kept[: PAGE * 2]
            return cut, self._news.applied if len(cut) == len(kept) else cut[-1].seq

        def work(connection: Connection) -> list[Change]:
            if read_head(connection).log_id != log_id:
                raise GoneError("another change log is followed now", hint="load a snapshot and follow from it")
            return read_changes(connection, after, limit=PAGE * 2)

        found = await self._door.database.read(work)
        return found, found[-1].seq if found else after

    async def _answer(
        self, rights: Rights, log_id: str, changes: Sequence[Change], seq: int, awaited: int
    ) -> ReplicaChanges:
        wanted: Wanted = {}
        for change in changes:
            if change.workspace == rights.workspace and change.kind in _RELEVANT:
                wanted[ChangeKind(change.kind), change.entity] = change.seq
        found = await self._records.current(rights.workspace, rights.keyspaces, wanted)
        return ReplicaChanges(
            log_id,
            seq,
            awaited,
            tuple(sorted(rights.keyspaces)),
            keyspaces=tuple(found.keyspaces),
            plans=tuple(found.plans),
            owners=tuple(found.owners),
            keys=tuple(found.keys),
            removed=tuple(found.removed),
        )

    async def _rights(self, credentials: Credentials, keyspaces: Sequence[str], *, again: bool = False) -> Rights:
        """Return what the caller may replicate, from memory while nothing has touched it."""
        clock = self._door.database.clock
        asked = "\0".join((credentials.ip or "", *sorted(keyspaces))).encode()
        mark = hashlib.blake2b(
            credentials.token.reveal_bytes() + b"\0" + asked, digest_size=16, key=self._hash_key
        ).digest()
        held = None if again else self._known.get(mark)
        if (
            held is not None
            and clock.boottime() < held.until
            and held.log_id == self._news.log_id
            and not self._news.rights_changed(held.workspace, held.seq)
        ):
            return held

        def work(op: Operation) -> Rights:
            head = read_head(op.connection)
            found = _allowed(op, keyspaces)
            lasting = min([RIGHTS_SECONDS, *(end - op.now for end in _ends(op.caller) if end > op.now)])
            return Rights(
                op.workspace, frozenset(one.id for one in found), head.log_id, head.seq, clock.boottime() + lasting
            )

        self._known.pop(mark, None)
        rights = await self._door.read(credentials, work)
        if len(self._known) >= RIGHTS_MAX:
            self._known.clear()
        self._known[mark] = rights
        return rights


@dataclass(frozen=True, slots=True)
class Allowed:
    """A keyspace that the caller may replicate."""

    id: str
    name: str
    stale_after_seconds: float


def _allowed(op: Operation, names: Sequence[str]) -> list[Allowed]:
    """Return the keyspaces that the caller may replicate, of those it names: all of them, or it is refused.

    What it may not replicate and what is not there get one and the same answer.
    """
    found = {
        one.name: Allowed(one.id, one.name, one.stale_after_seconds)
        for one in keyspace_store.list_keyspaces(op.connection, op.workspace, "", KEYSPACES_READ)
        if (not names or one.name in names)
        and op.allows(Action.KEYSPACE_REPLICATE, Resource(f"keyspace/{one.name}", one.environment))
    }
    lacking = next((name for name in names if name not in found), None)
    if found and lacking is None:
        return list(found.values())
    what = "any keyspace" if lacking is None else f"a keyspace named {lacking!r}"
    public = ForbiddenError(
        f"{op.caller.principal} may not replicate {what}", hint="it needs keyspace.replicate on keyspace/<name>"
    )
    resource = None if lacking is None else Resource(f"keyspace/{lacking}")
    raise op.refusal(Action.KEYSPACE_REPLICATE, resource, public)


def _ends(caller: Caller) -> list[float]:
    """Return when the caller's token, or a grant to replicate, ends."""
    ends = [caller.token_expires_at]
    ends.extend(
        grant.conditions.not_after
        for grant in caller.grants
        if any(matches(pattern, Action.KEYSPACE_REPLICATE) for pattern in grant.actions)
    )
    return [end for end in ends if end is not None]


def _concerned(changes: Sequence[Change], workspace: str) -> bool:
    return any(change.workspace == workspace and change.kind in _RELEVANT for change in changes)


def _page(op: Operation, log_id: str, seq: int, ids: tuple[str, ...], cursor: str) -> ReplicaSnapshot:
    """Return a page behind a cursor: owners first (`o:<after>`), then the keys of each keyspace (`<id>:<after>`)."""
    where, colon, after = cursor.partition(":")
    if not colon or len(cursor) > 256:
        raise InputError("the cursor is not one of this snapshot", field="cursor")
    if where == "o":
        owners = tuple(plan_records.load_owners(op.connection, op.workspace, after, limit=PAGE))
        following = f"o:{owners[-1].id}" if len(owners) == PAGE else f"{ids[0]}:"
        return ReplicaSnapshot(log_id, seq, ids, owners=owners, next_cursor=following)
    behind = next((one for one in ids if one > where), None)
    if where not in ids:
        # The right to this keyspace was lost between two pages.
        return ReplicaSnapshot(log_id, seq, ids, next_cursor=None if behind is None else f"{behind}:")
    keys = tuple(records.load_page(op.connection, after, limit=PAGE, keyspace_id=where))
    if len(keys) == PAGE:
        return ReplicaSnapshot(log_id, seq, ids, keys=keys, next_cursor=f"{where}:{keys[-1].id}")
    return ReplicaSnapshot(log_id, seq, ids, keys=keys, next_cursor=None if behind is None else f"{behind}:")
