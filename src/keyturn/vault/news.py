"""News of secrets by long poll: which of the watched paths to read again; never a value.

    right to each path -> what they refer to -> wait for the follower -> changes since the cursor -> paths concerned

A cursor is `<log id>:<number>` of the change log.  A poll that waits costs the database nothing; it is woken with the
follower, about 25 ms after a commit.  A path is also named when a secret that it refers to, over any number of steps,
may have another value, and when rights or guards have changed: what a read gives may then be something else.  That a
version's time is over changes nothing in the log, and is not news.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from keyturn.access.known_callers import RIGHTS
from keyturn.errors import InputError
from keyturn.kernel.ids import is_id
from keyturn.storage.change_log import read_head
from keyturn.storage.schema import secret, secret_reference
from keyturn.storage.transaction import ChangeKind
from keyturn.vault.paths import parse_path
from keyturn.vault.resolving import DEPTH_MAX
from keyturn.wire.actions import Action
from keyturn.wire.secrets import SecretNews

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.storage.change_log import Change
    from keyturn.vault.paths import Path
    from keyturn.vault.reading_ports import ChangeNews

WAIT_SECONDS_MAX: Final = 10.0
PATHS_MAX: Final = 200
PLACES_MAX: Final = 65_536
TARGETS_MAX: Final = 10_000

_CURSOR: Final = re.compile(r"([A-Za-z0-9_]{1,64}):([0-9]{1,18})")
_KNOWING: Final = (Action.SECRET_LIST, Action.SECRET_READ, Action.SECRET_REVEAL)


@dataclass(frozen=True, slots=True)
class _Watched:
    """What a poll waits for, as the database had it at `seq` of a log."""

    workspace: str
    concerns: Mapping[str, frozenset[str]]
    """By path: the watched paths whose values depend on it."""
    log_id: str
    seq: int


class SecretWatch:
    """Answers long polls for news; for one event loop."""

    def __init__(self, door: Door, news: ChangeNews, draining: asyncio.Event) -> None:
        """Wait on `news`; every poll ends once `draining` is set and `news` has woken it."""
        self._door = door
        self._news = news
        self._draining = draining
        self._places: dict[str, str] = {}

    async def wait(
        self, credentials: Credentials, paths: Sequence[str], cursor: str | None, wait_seconds: float
    ) -> SecretNews:
        """Return which paths to read again since the cursor; without one, or with one that is too old, all of them.

        A caller needs the right to list, to read or to reveal each path; raises NotFoundError for one it has none to,
        also when the right is lost while it waits.
        """
        parsed = _parsed(paths)
        every = tuple(path.text for path in parsed)
        after = _after(cursor)
        watched = await self._watched(credentials, parsed)
        if after is None or after[0] != watched.log_id or after[1] > watched.seq:
            return SecretNews(cursor=f"{watched.log_id}:{watched.seq}", changed=every)
        log_id, seq = after
        clock, news = self._door.database.clock, self._news
        deadline = clock.boottime() + min(max(wait_seconds, 0.0), WAIT_SECONDS_MAX)
        while True:
            if news.log_id == log_id and news.applied > seq:
                changes = news.since(seq)
                if changes is None or _may_differ(changes, watched.workspace):
                    watched = await self._watched(credentials, parsed)
                    return SecretNews(cursor=f"{watched.log_id}:{watched.seq}", changed=every)
                seq = max(seq, news.applied)
                concerned = await self._concerned(changes, watched)
                if concerned:
                    return SecretNews(cursor=f"{log_id}:{seq}", changed=concerned)
            elif news.log_id not in {log_id, ""}:
                return SecretNews(cursor=f"{watched.log_id}:{watched.seq}", changed=every)
            left = deadline - clock.boottime()
            if left <= 0.0 or self._draining.is_set():
                return SecretNews(cursor=f"{log_id}:{seq}", changed=())
            await news.wait(left)

    async def _watched(self, credentials: Credentials, paths: Sequence[Path]) -> _Watched:
        def work(op: Operation) -> _Watched:
            for path in paths:
                _authorise(op, path)
            head = read_head(op.connection)
            concerns = _dependencies(op.connection, op.workspace, [path.text for path in paths])
            return _Watched(op.workspace, concerns, head.log_id, head.seq)

        return await self._door.read(credentials, work)

    async def _concerned(self, changes: Iterable[Change], watched: _Watched) -> tuple[str, ...]:
        entities = {
            change.entity
            for change in changes
            if change.kind == ChangeKind.SECRET and change.workspace == watched.workspace
        }
        unknown = [entity for entity in entities if entity not in self._places]
        if unknown:
            await self._learn(unknown)
        found: set[str] = set()
        for entity in entities:
            found |= watched.concerns.get(self._places.get(entity, ""), frozenset())
        return tuple(sorted(found))

    async def _learn(self, entities: Sequence[str]) -> None:
        """Remember where secrets are: the path of one never changes."""

        def work(connection: Connection) -> dict[str, str]:
            places: dict[str, str] = {}
            for first in range(0, len(entities), 500):
                rows = connection.execute(
                    select(secret.c.id, secret.c.path).where(secret.c.id.in_(entities[first : first + 500]))
                )
                places.update({row.id: row.path for row in rows})
            return places

        places = await self._door.database.read(work)
        if len(self._places) + len(places) > PLACES_MAX:
            self._places.clear()
        self._places.update(places)


def _parsed(paths: Sequence[str]) -> list[Path]:
    if not 0 < len(paths) <= PATHS_MAX:
        raise InputError(f"expected 1 to {PATHS_MAX} paths, found {len(paths)}", field="path")
    return [parse_path(text) for text in dict.fromkeys(paths)]


def _after(cursor: str | None) -> tuple[str, int] | None:
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InputError("the cursor is not one of an answer before", field="cursor")
    return found[1], int(found[2])


def _authorise(op: Operation, path: Path) -> None:
    if not any(op.allows(action, path.resource) for action in _KNOWING):
        op.authorise(Action.SECRET_LIST, path.resource, kind="secret", name=path.text)


def _may_differ(changes: Iterable[Change], workspace: str) -> bool:
    """Tell whether changes may concern what anybody in the workspace is allowed to read."""
    return any(
        (
            change.workspace == workspace
            and (
                change.kind in RIGHTS
                or change.kind == ChangeKind.GUARD
                or (change.kind == ChangeKind.KEY and is_id("tok", change.entity))
            )
        )
        or (change.kind == ChangeKind.WORKSPACE and change.entity == workspace)
        for change in changes
    )


def _dependencies(connection: Connection, workspace: str, paths: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return, by path, the watched paths whose values depend on it: themselves, and what they refer to."""
    concerns = {path: {path} for path in paths}
    edge = set(paths)
    for _ in range(DEPTH_MAX):
        rows = connection.execute(
            select(secret.c.path, secret_reference.c.target)
            .join(secret, secret.c.id == secret_reference.c.secret)
            .where(secret_reference.c.workspace == workspace, secret.c.path.in_(sorted(edge)))
            .distinct()
            .limit(TARGETS_MAX)
        ).all()
        edge = set()
        for path, target in rows:
            known = concerns.setdefault(target, set())
            if not concerns[path] <= known:
                known |= concerns[path]
                edge.add(target)
        if not edge:
            break
    return {path: frozenset(watching) for path, watching in concerns.items()}
