"""Reading usage: series, ranks, who used what last, and what is not known.

A caller sees the keyspaces it holds `usage.read` on; the rest of its workspace is left out as if it were not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.access.caller import Resource
from keyturn.errors import InputError
from keyturn.kernel.clock import rfc3339
from keyturn.usage import queries, rules, selection, store
from keyturn.usage.queries import Range, Scope
from keyturn.wire.actions import Action
from keyturn.wire.usage import (
    Dimension,
    KeyUsage,
    LastUse,
    LastUses,
    Period,
    UsageCount,
    UsageFilter,
    UsageLoss,
    UsageLosses,
    UsagePoint,
    UsageRank,
    UsageSeries,
    UsageTop,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.usage.selection import Selection
    from keyturn.wire.usage import VersionUse

ITEMS_MAX: Final = 5000
TOP_MAX: Final = 100
TOP_DEFAULT: Final = 10
TOP_SECONDS_DEFAULT: Final = 86_400
LAST_USES_MAX: Final = 200
LOSSES_MAX: Final = 1000
SPAN_SECONDS_MAX: Final = 1500 * 86_400


class UsageService:
    """Answers how keys are used."""

    def __init__(self, door: Door) -> None:
        """Let callers in through `door`."""
        self._door = door

    async def of_key(
        self,
        credentials: Credentials,
        key_id: str,
        *,
        period: Period = Period.HOUR,
        since: float | None = None,
        until: float | None = None,
    ) -> KeyUsage:
        """Return the usage of a key by period, version and outcome.

        `since` and `until` are epoch seconds, taken down to the start of their bucket, that of `until` included; the
        default is the last hour, 48 hours or 30 days.
        Raises InputError when the range is empty or longer than `BUCKETS_MAX` buckets.
        """

        def work(operation: Operation) -> KeyUsage:
            place = store.find_key(operation.connection, operation.workspace, key_id)
            resource = None if place is None else Resource(f"key/{place.keyspace}/{key_id}", place.environment)
            operation.authorise(Action.KEY_READ, resource, kind="key", name=key_id)
            first, last = selection.window(period, since, until, operation.now)
            return _report(operation.connection, key_id, period, first, last)

        return await self._door.read(credentials, work)

    async def series(
        self,
        credentials: Credentials,
        wanted: UsageFilter,
        *,
        period: Period = Period.HOUR,
        since: float | None = None,
        until: float | None = None,
        group_by: Dimension | None = None,
    ) -> UsageSeries:
        """Return a series of what is wanted, one point for each bucket and group.

        Raises InputError for what is not counted together, or when the range is empty or too long.
        """
        chosen = selection.select_rows(wanted, group_by)
        selection.require_kept(chosen, period)

        def work(operation: Operation) -> UsageSeries:
            scope = _scope(operation, wanted)
            first, last = selection.window(period, since, until, operation.now)
            return _series(operation.connection, chosen, scope, Range(period, first, last))

        return await self._door.read(credentials, work)

    async def top(
        self,
        credentials: Credentials,
        dimension: Dimension,
        wanted: UsageFilter,
        *,
        count: int = TOP_DEFAULT,
        since: float | None = None,
        until: float | None = None,
    ) -> UsageTop:
        """Return the values of a dimension with the most verifications; the default is the last day.

        The window is taken to whole minutes, hours or days, whichever are kept and not too many.
        """
        chosen = selection.select_rows(wanted, dimension)

        def work(operation: Operation) -> UsageTop:
            scope = _scope(operation, wanted)
            now = operation.now
            last = now if until is None else until
            first = last - TOP_SECONDS_DEFAULT if since is None else since
            if not 0 < last - first <= SPAN_SECONDS_MAX:
                raise InputError("expected `since` before `until`, by no more than 1500 days", field="since")
            period = selection.period_of(chosen.dimension, first, last, now)
            begin, end = selection.window(period, first, last, now)
            within = Range(period, begin, end)
            ranks = queries.top(operation.connection, chosen, scope, within, min(count, TOP_MAX))
            counts = queries.totals(operation.connection, chosen, scope, within)
            return UsageTop(
                dimension=str(dimension),
                since=rfc3339(begin),
                until=rfc3339(end),
                total=sum(n for outcome, n in counts.items() if chosen.shadow or not rules.is_shadow(outcome)),
                items=tuple(UsageRank(_shown(scope, dimension, value) or value, n) for value, n in ranks),
            )

        return await self._door.read(credentials, work)

    async def last_uses(self, credentials: Credentials, wanted: UsageFilter, *, count: int = TOP_MAX) -> LastUses:
        """Return the latest use of each version that is wanted, the latest first."""

        def work(operation: Operation) -> LastUses:
            scope = _scope(operation, wanted)
            rows = queries.last_uses(operation.connection, scope, wanted.owner, min(count, LAST_USES_MAX))
            return LastUses(
                tuple(
                    LastUse(
                        key_id=row.key,
                        version_id=row.version,
                        keyspace=scope.keyspaces[row.place],
                        at=rfc3339(row.at),
                        ip_network=row.ip_network,
                        user_agent=row.user_agent,
                        endpoint=row.endpoint,
                    )
                    for row in rows
                )
            )

        return await self._door.read(credentials, work)

    async def losses(self, credentials: Credentials) -> UsageLosses:
        """Return what nodes that the caller may see had counted and not written when they ended."""

        def work(operation: Operation) -> UsageLosses:
            rows = [
                row
                for row in queries.losses(operation.connection, LOSSES_MAX)
                if operation.allows(Action.NODE_READ, Resource(f"node/{row.node}"))
            ]
            return UsageLosses(
                tuple(UsageLoss(row.node, rfc3339(row.at), row.counted, row.written, row.lost) for row in rows),
                sum(row.lost for row in rows),
            )

        return await self._door.read(credentials, work)

    def last_used(self, connection: Connection, version_ids: Sequence[str]) -> Mapping[str, VersionUse]:
        """Return who uses each of these versions; those that were never used are left out.

        The caller has authorised already.
        """
        return store.uses(connection, version_ids)


def _scope(operation: Operation, wanted: UsageFilter) -> Scope:
    """Return what the caller may see of what it asks for; raises the refusal of a key or keyspace that is named."""
    connection, workspace = operation.connection, operation.workspace
    places = queries.keyspaces(connection, workspace)
    visible = {
        one.id: one.name
        for one in places
        if operation.allows(Action.USAGE_READ, Resource(f"keyspace/{one.name}", one.environment))
    }
    if wanted.key is not None or wanted.version is not None:
        found = queries.find_key(connection, workspace, wanted.key, wanted.version)
        if found is None or found.keyspace.id not in visible:
            resource = None if found is None else Resource(f"key/{found.keyspace.name}/{found.key}", found.environment)
            kind, name = ("key", wanted.key) if wanted.key is not None else ("version", wanted.version or "")
            operation.authorise(Action.USAGE_READ, resource, kind=kind, name=name)
        if found is None:  # pragma: no cover -- refused above
            return Scope({})
        visible = {found.keyspace.id: found.keyspace.name}
        if wanted.keyspace is not None and wanted.keyspace != found.keyspace.name:
            visible = {}
        return Scope(visible, found.key, wanted.version)
    if wanted.keyspace is None:
        return Scope(visible)
    named = next((one for one in places if one.name == wanted.keyspace), None)
    resource = None if named is None else Resource(f"keyspace/{named.name}", named.environment)
    absent = Resource(f"keyspace/{wanted.keyspace}")
    operation.authorise(Action.USAGE_READ, resource, kind="keyspace", name=wanted.keyspace, absent=absent)
    return Scope({} if named is None else {named.id: named.name})


def _shown(scope: Scope, by: Dimension | None, value: str | None) -> str | None:
    """Return a group as callers know it: keyspaces by their names."""
    return scope.keyspaces.get(value, value) if by is Dimension.KEYSPACE and value is not None else value


def _series(connection: Connection, chosen: Selection, scope: Scope, within: Range) -> UsageSeries:
    rows = queries.series(connection, chosen, scope, within, ITEMS_MAX + 1)
    counts = queries.totals(connection, chosen, scope, within)
    by = chosen.group_by
    return UsageSeries(
        period=str(within.period),
        since=rfc3339(within.first),
        until=rfc3339(within.last),
        group_by=None if by is None else str(by),
        totals={outcome: count for outcome, count in counts.items() if not rules.is_shadow(outcome)},
        shadow={outcome: count for outcome, count in counts.items() if rules.is_shadow(outcome)},
        items=tuple(
            UsagePoint(rfc3339(start), count, _shown(scope, by, group)) for start, group, count in rows[:ITEMS_MAX]
        ),
        truncated=len(rows) > ITEMS_MAX,
    )


def _report(connection: Connection, key_id: str, period: Period, first: int, last: int) -> KeyUsage:
    rows = store.buckets(connection, key_id, period, first, last, ITEMS_MAX + 1)
    return KeyUsage(
        key_id=key_id,
        period=str(period),
        since=rfc3339(first),
        until=rfc3339(last),
        totals=store.totals(connection, key_id, period, first, last),
        items=tuple(UsageCount(rfc3339(row.start), row.version, row.outcome, row.count) for row in rows[:ITEMS_MAX]),
        truncated=len(rows) > ITEMS_MAX,
    )
