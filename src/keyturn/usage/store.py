"""SQL of usage: adding counts, reading them, dropping old ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import case, delete, func, select, text

from keyturn.storage.schema import issued_key, keyspace, last_used, usage_rollup
from keyturn.storage.upsert import insert_on_conflict
from keyturn.usage.rules import CALLERS_MAX, KEPT_SECONDS, OTHER
from keyturn.wire.usage import CallerUse, VersionUse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from sqlalchemy import Connection

    from keyturn.wire.usage import Period

ASKED_MAX = 500


CountedRow = tuple[str, str, int, str, str, str, int]
"""Key, version, start of the minute, outcome, workspace, keyspace, count."""


@dataclass(slots=True)
class CallerRow:
    """Uses to add to one caller of a version."""

    version: str
    caller: str
    key: str
    workspace: str
    first_at: float
    at: float
    ip_network: str | None
    user_agent: str | None
    endpoint: str | None
    count: int = 0


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key is, as far as access needs to know."""

    keyspace: str
    environment: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """One row of a rollup."""

    start: int
    version: str
    outcome: str
    count: int


# One statement for a whole batch: on SQLite none of it runs under the interpreter's lock, which the event loop needs.
_PERIODS = "(SELECT 'minute' AS name, 60 AS length UNION ALL SELECT 'hour', 3600 UNION ALL SELECT 'day', 86400)"
_ADD_COUNTS = """
    INSERT INTO usage_rollup (key, version, period, start, outcome, workspace, keyspace, count)
    SELECT r.key, r.version, p.name, r.minute - r.minute % p.length, r.outcome, r.workspace, r.keyspace, sum(r.count)
    FROM {rows} AS r CROSS JOIN {periods} AS p
    WHERE true
    GROUP BY r.key, r.version, p.name, p.length, r.minute - r.minute % p.length, r.outcome, r.workspace, r.keyspace
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (key, version, period, start, outcome) DO UPDATE SET count = usage_rollup.count + excluded.count
"""
_ROWS_SQLITE = """(
    SELECT json_extract(value, '$[0]') AS key, json_extract(value, '$[1]') AS version,
           json_extract(value, '$[2]') AS minute, json_extract(value, '$[3]') AS outcome,
           json_extract(value, '$[4]') AS workspace, json_extract(value, '$[5]') AS keyspace,
           json_extract(value, '$[6]') AS count
    FROM json_each(:rows)
)"""
_ROWS_POSTGRESQL = """(
    SELECT value ->> 0 AS key, value ->> 1 AS version, CAST(value ->> 2 AS bigint) AS minute, value ->> 3 AS outcome,
           value ->> 4 AS workspace, value ->> 5 AS keyspace, CAST(value ->> 6 AS bigint) AS count
    FROM json_array_elements(CAST(:rows AS json))
)"""
_add_counts_sqlite = text(_ADD_COUNTS.format(rows=_ROWS_SQLITE, periods=_PERIODS))
_add_counts_postgresql = text(_ADD_COUNTS.format(rows=_ROWS_POSTGRESQL, periods=_PERIODS))


def add_counts(connection: Connection, rows: Sequence[CountedRow]) -> None:
    """Add counts of minutes to the rollups of every period."""
    if not rows:
        return
    on_postgresql = connection.dialect.name == "postgresql"
    statement = _add_counts_postgresql if on_postgresql else _add_counts_sqlite
    connection.execute(statement, {"rows": msgspec.json.encode(rows).decode()})


def add_callers(
    connection: Connection, callers: Sequence[CallerRow], known: AbstractSet[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Add uses to callers; return those that have a row of their own now.

    `known` are callers that had one before; others get one while the version has fewer than `CALLERS_MAX`.
    """
    if not callers:
        return []
    admitted = _admit(connection, callers, known)
    connection.execute(_adding(connection), [asdict(row) for row in admitted])
    return [(row.version, row.caller) for row in admitted if row.caller != OTHER]


def uses(connection: Connection, version_ids: Sequence[str]) -> dict[str, VersionUse]:
    """Return who uses each version, the latest caller first; versions that were never used are left out."""
    found: dict[str, list[CallerUse]] = {}
    for first in range(0, len(version_ids), ASKED_MAX):
        rows = connection.execute(
            select(*last_used.c, last_used.c["count"].label("uses"))
            .where(last_used.c.version.in_(version_ids[first : first + ASKED_MAX]))
            .order_by(last_used.c.at.desc())
        )
        for row in rows:
            found.setdefault(row.version, []).append(
                CallerUse(
                    first_at=row.first_at,
                    at=row.at,
                    count=row.uses,
                    ip_network=row.ip_network,
                    user_agent=row.user_agent,
                    endpoint=row.endpoint,
                    other=row.caller == OTHER,
                )
            )
    return {
        version: VersionUse(callers[0].at, sum(one.count for one in callers), tuple(callers))
        for version, callers in found.items()
    }


def find_key(connection: Connection, workspace: str, key_id: str) -> KeyPlace | None:
    """Return where a key of the workspace is; None for a management token too."""
    row = connection.execute(
        select(keyspace.c.name, issued_key.c.environment)
        .join_from(issued_key, keyspace, issued_key.c.keyspace == keyspace.c.id)
        .where(issued_key.c.id == key_id, issued_key.c.workspace == workspace, ~keyspace.c.system)
    ).first()
    return None if row is None else KeyPlace(row.name, row.environment)


def buckets(connection: Connection, key_id: str, period: Period, since: int, until: int, limit: int) -> list[Bucket]:
    """Return the buckets of a key that begin from `since` until before `until`, oldest first."""
    rows = connection.execute(
        select(
            usage_rollup.c.start, usage_rollup.c.version, usage_rollup.c.outcome, usage_rollup.c["count"].label("uses")
        )
        .where(*_within(key_id, period, since, until))
        .order_by(usage_rollup.c.start, usage_rollup.c.version, usage_rollup.c.outcome)
        .limit(limit)
    )
    return [Bucket(row.start, row.version, row.outcome, row.uses) for row in rows]


def totals(connection: Connection, key_id: str, period: Period, since: int, until: int) -> dict[str, int]:
    """Return how often each outcome occurred in those buckets."""
    rows = connection.execute(
        select(usage_rollup.c.outcome, func.sum(usage_rollup.c["count"]).label("total"))
        .where(*_within(key_id, period, since, until))
        .group_by(usage_rollup.c.outcome)
        .order_by(usage_rollup.c.outcome)
    )
    return {row.outcome: int(row.total) for row in rows}


def prune(connection: Connection, now: float) -> int:
    """Drop buckets that are older than their period is kept; return how many."""
    return sum(
        connection.execute(
            delete(usage_rollup).where(usage_rollup.c.period == str(period), usage_rollup.c.start < int(now - seconds))
        ).rowcount
        for period, seconds in KEPT_SECONDS.items()
    )


def _within(key_id: str, period: Period, since: int, until: int) -> tuple[Any, ...]:
    return (
        usage_rollup.c.key == key_id,
        usage_rollup.c.period == str(period),
        usage_rollup.c.start >= since,
        usage_rollup.c.start < until,
    )


def _admit(
    connection: Connection, callers: Sequence[CallerRow], known: AbstractSet[tuple[str, str]]
) -> list[CallerRow]:
    """Give each caller its row, or that of the others of its version; one row for each, in order."""
    unknown = sorted({row.version for row in callers if (row.version, row.caller) not in known})
    held: dict[str, set[str]] = {version: set() for version in unknown}
    for first in range(0, len(unknown), ASKED_MAX):
        for found in connection.execute(
            select(last_used.c.version, last_used.c.caller).where(
                last_used.c.version.in_(unknown[first : first + ASKED_MAX]), last_used.c.caller != OTHER
            )
        ):
            held[found.version].add(found.caller)
    rows: dict[tuple[str, str], CallerRow] = {}
    for row in callers:
        placed = row
        if (row.version, row.caller) not in known:
            own = held[row.version]
            if row.caller in own or len(own) < CALLERS_MAX:
                own.add(row.caller)
            else:
                placed = replace(row, caller=OTHER, ip_network=None, user_agent=None, endpoint=None)
        already = rows.get((placed.version, placed.caller))
        if already is None:
            rows[placed.version, placed.caller] = placed
        else:
            already.count += placed.count
            already.first_at = min(already.first_at, placed.first_at)
            already.at = max(already.at, placed.at)
    return [rows[name] for name in sorted(rows)]


def _adding(connection: Connection) -> Any:  # noqa: ANN401 -- one of two dialects' inserts
    """Build the insert that adds to a caller that has a row already."""
    statement = insert_on_conflict(connection, last_used)
    old, new = last_used.c, statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[old.version, old.caller],
        set_={
            "count": old["count"] + new["count"],
            "at": case((new["at"] > old["at"], new["at"]), else_=old["at"]),
            "first_at": case((new["first_at"] < old["first_at"], new["first_at"]), else_=old["first_at"]),
        },
    )
