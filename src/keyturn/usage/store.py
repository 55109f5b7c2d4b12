"""SQL of usage: adding counts, reading them, dropping old ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import case, delete, func, select, text

from keyturn.storage.schema import (
    issued_key,
    keyspace,
    last_used,
    usage_dimension,
    usage_loss,
    usage_rollup,
    usage_writer,
)
from keyturn.storage.upsert import insert_on_conflict
from keyturn.usage.rules import (
    CALLERS_MAX,
    KEPT_SECONDS,
    LOSS_SECONDS,
    OTHER,
    TOLD_DAYS_SECONDS,
    WRITER_SECONDS,
)
from keyturn.wire.usage import CallerUse, Period, VersionUse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from sqlalchemy import Connection, Delete, TextClause


ASKED_MAX = 500


CountedRow = tuple["str | int | None", ...]
"""Key, version, start of the minute, outcome, workspace, keyspace, count, owner, and the eight of its `Place`."""


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
_COLUMNS = ("key", "version", "minute", "outcome", "workspace", "keyspace", "count", "owner")
_PLACED = tuple(f"{level}_{name}" for level in ("key", "all") for name in ("endpoint", "country", "network", "agent"))
_NUMBERS = frozenset({"minute", "count"})
_PERIODS = "(SELECT 'minute' AS name, 60 AS length UNION ALL SELECT 'hour', 3600 UNION ALL SELECT 'day', 86400)"
_ADD_COUNTS = """
    WITH r AS MATERIALIZED ({rows})
    INSERT INTO usage_rollup (key, version, period, start, outcome, workspace, keyspace, count)
    SELECT r.key, r.version, p.name, r.minute - r.minute % p.length, r.outcome, r.workspace, r.keyspace, sum(r.count)
    FROM r CROSS JOIN {periods} AS p
    WHERE true
    GROUP BY r.key, r.version, p.name, p.length, r.minute - r.minute % p.length, r.outcome, r.workspace, r.keyspace
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (key, version, period, start, outcome) DO UPDATE SET count = usage_rollup.count + excluded.count
"""
_ADD_DIMENSIONS = """
    WITH r AS MATERIALIZED ({rows}), d AS MATERIALIZED (
        {values}
    )
    INSERT INTO usage_dimension (keyspace, key, dimension, period, start, value, outcome, workspace, count)
    SELECT d.keyspace, d.key, d.dimension, p.name, d.minute - d.minute % p.length, d.value, d.outcome, d.workspace,
           sum(d.count)
    FROM d CROSS JOIN {periods} AS p
    WHERE p.length >= d.least
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (keyspace, key, dimension, period, start, value, outcome)
    DO UPDATE SET count = usage_dimension.count + excluded.count
"""
_VALUE = """
    SELECT keyspace, {key} AS key, '{dimension}' AS dimension, minute, {value} AS value, outcome, workspace,
           sum(count) AS count, {least} AS least
    FROM r WHERE {value} IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_DIMENSIONS = (
    # Dimension, key, value, and the length of the shortest period that is kept.
    ("keyspace", "''", "''", 60),
    ("owner", "''", "owner", 60),
    ("endpoint", "key", "key_endpoint", 60),
    ("country", "key", "key_country", 60),
    ("ip_network", "key", "key_network", 3600),
    ("user_agent", "key", "key_agent", 3600),
    ("endpoint", "''", "all_endpoint", 60),
    ("country", "''", "all_country", 60),
    ("ip_network", "''", "all_network", 3600),
    ("user_agent", "''", "all_agent", 3600),
)


DIMENSIONS = tuple(dict.fromkeys(name for name, *_ in _DIMENSIONS))
"""The names of all of them."""


def _rows(*, postgresql: bool) -> str:
    columns = []
    for place, name in enumerate((*_COLUMNS, *_PLACED)):
        if not postgresql:
            columns.append(f"json_extract(value, '$[{place}]') AS {name}")
        elif name in _NUMBERS:
            columns.append(f"CAST(value ->> {place} AS bigint) AS {name}")
        else:
            columns.append(f"value ->> {place} AS {name}")
    source = "json_array_elements(CAST(:rows AS json)) AS given(value)" if postgresql else "json_each(:rows)"
    return f"SELECT {', '.join(columns)} FROM {source}"  # noqa: S608 -- of constants


def _statements(*, postgresql: bool) -> tuple[TextClause, TextClause]:
    rows = _rows(postgresql=postgresql)
    values = " UNION ALL ".join(
        _VALUE.format(dimension=dimension, key=key, value=value, least=least)
        for dimension, key, value, least in _DIMENSIONS
    )
    return (
        text(_ADD_COUNTS.format(rows=rows, periods=_PERIODS)),
        text(_ADD_DIMENSIONS.format(rows=rows, periods=_PERIODS, values=values)),
    )


_STATEMENTS = {"sqlite": _statements(postgresql=False), "postgresql": _statements(postgresql=True)}


def add_counts(connection: Connection, rows: Sequence[CountedRow]) -> None:
    """Add counts of minutes to the rollups of every period and dimension."""
    if not rows:
        return
    given = {"rows": msgspec.json.encode(rows).decode()}
    for statement in _STATEMENTS[connection.dialect.name]:
        connection.execute(statement, given)


def advance(connection: Connection, node: str, number: int, count: int, now: float) -> bool:
    """Note that a node writes its `number`-th unit in this transaction; False when it was written before."""
    row = connection.execute(_advance, {"node": node, "number": number, "count": count, "now": now}).first()
    return row is not None


_advance = text("""
    INSERT INTO usage_writer (node, number, written, at) VALUES (:node, :number, :count, :now)
    ON CONFLICT (node) DO UPDATE SET number = excluded.number, written = usage_writer.written + excluded.written,
                                     at = excluded.at
    WHERE usage_writer.number < excluded.number
    RETURNING number
""")


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


def prune_steps(now: float) -> list[Delete]:
    """Return what drops everything that is older than it is kept: one statement for one unit of work each."""
    kept = [(period, dimension, seconds) for period, seconds in KEPT_SECONDS.items() for dimension in DIMENSIONS]
    kept += [(Period.DAY, dimension, TOLD_DAYS_SECONDS) for dimension in ("ip_network", "user_agent")]
    rollup, told = usage_rollup.c, usage_dimension.c
    return [
        *(
            delete(usage_rollup).where(rollup.period == str(period), rollup.start < int(now - seconds))
            for period, seconds in KEPT_SECONDS.items()
        ),
        *(
            delete(usage_dimension).where(
                told.dimension == dimension, told.period == str(period), told.start < int(now - seconds)
            )
            for period, dimension, seconds in kept
        ),
        delete(usage_writer).where(usage_writer.c["at"] < now - WRITER_SECONDS),
        delete(usage_loss).where(usage_loss.c["at"] < now - LOSS_SECONDS),
    ]


def prune(connection: Connection, now: float) -> int:
    """Drop what is older than it is kept, all of it at once; return how many rows."""
    return sum(connection.execute(step).rowcount for step in prune_steps(now))


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
