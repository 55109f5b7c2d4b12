"""Reading usage: the time series of a key, and who used its versions last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.access.caller import Resource
from keyturn.errors import InputError
from keyturn.kernel.clock import rfc3339
from keyturn.usage import store
from keyturn.usage.rules import SECONDS, start_of
from keyturn.wire.actions import Action
from keyturn.wire.usage import KeyUsage, Period, UsageCount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.wire.usage import VersionUse

ITEMS_MAX: Final = 5000
BUCKETS_DEFAULT: Final = {Period.MINUTE: 60, Period.HOUR: 48, Period.DAY: 30}
BUCKETS_MAX: Final = 1500


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
            first, last = _range(period, since, until, operation.now)
            return _report(operation.connection, key_id, period, first, last)

        return await self._door.read(credentials, work)

    def last_used(self, connection: Connection, version_ids: Sequence[str]) -> Mapping[str, VersionUse]:
        """Return who uses each of these versions; those that were never used are left out.

        The caller has authorised already.
        """
        return store.uses(connection, version_ids)


def _range(period: Period, since: float | None, until: float | None, now: float) -> tuple[int, int]:
    length = SECONDS[period]
    last = start_of(period, now if until is None else until) + length
    first = last - BUCKETS_DEFAULT[period] * length if since is None else start_of(period, since)
    if first >= last:
        raise InputError("expected `since` before `until`", field="since")
    if (last - first) // length > BUCKETS_MAX:
        raise InputError(
            f"expected at most {BUCKETS_MAX} buckets, found {(last - first) // length}",
            field="since",
            hint="ask for a longer period or a shorter range",
        )
    return first, last


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
