"""SQL of the questions about usage; every answer has a bounded number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, not_, select

from keyturn.storage.schema import (
    issued_key,
    key_version,
    keyspace,
    last_used,
    usage_dimension,
    usage_loss,
    usage_rollup,
)
from keyturn.usage.rules import OTHER, SHADOW
from keyturn.wire.usage import Dimension, Period

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from keyturn.usage.selection import Selection


@dataclass(frozen=True, slots=True)
class Place:
    """A keyspace, as far as access needs to know."""

    id: str
    name: str
    environment: str


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Which key is meant, and where it is."""

    key: str
    keyspace: Place
    environment: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What the caller may see of a question: keyspaces, and one key or version if that is asked for."""

    keyspaces: Mapping[str, str]
    """Names by id."""
    key: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The buckets from `first` until before `last`."""

    period: Period
    first: int
    last: int


def keyspaces(connection: Connection, workspace: str) -> list[Place]:
    """Return the keyspaces of a workspace, without those of the system."""
    rows = connection.execute(
        select(keyspace.c.id, keyspace.c.name, keyspace.c.environment).where(
            keyspace.c.workspace == workspace, ~keyspace.c.system
        )
    )
    return [Place(row.id, row.name, row.environment) for row in rows]


def find_key(connection: Connection, workspace: str, key: str | None, version: str | None) -> KeyPlace | None:
    """Return the key of this id, or of this version; None when there is none of both in the workspace."""
    found = (
        select(issued_key.c.id, issued_key.c.environment, keyspace.c.id.label("place"), keyspace.c.name)
        .join_from(issued_key, keyspace, issued_key.c.keyspace == keyspace.c.id)
        .where(issued_key.c.workspace == workspace, ~keyspace.c.system)
    )
    if key is not None:
        found = found.where(issued_key.c.id == key)
    if version is not None:
        found = found.join(key_version, key_version.c.key == issued_key.c.id).where(key_version.c.id == version)
    row = connection.execute(found).first()
    if row is None:
        return None
    return KeyPlace(row.id, Place(row.place, row.name, row.environment), row.environment)


def series(
    connection: Connection, selection: Selection, scope: Scope, within: Range, limit: int
) -> list[tuple[int, str | None, int]]:
    """Return bucket, group and count, oldest first."""
    table = _table(selection)
    group = _group(selection)
    columns: list[ColumnElement[Any]] = [table.c.start, func.sum(table.c["count"]).label("uses")]
    keys: list[ColumnElement[Any]] = [table.c.start]
    if group is not None:
        columns.append(group.label("grouped"))
        keys.append(group)
    rows = connection.execute(
        select(*columns)
        .where(*_conditions(selection, scope, within), *_real(selection))
        .group_by(*keys)
        .order_by(*keys)
        .limit(limit)
    )
    return [(row.start, None if group is None else row.grouped, int(row.uses)) for row in rows]


def totals(connection: Connection, selection: Selection, scope: Scope, within: Range) -> dict[str, int]:
    """Return how often each outcome occurred, those included that would have been."""
    table = _table(selection)
    rows = connection.execute(
        select(table.c.outcome, func.sum(table.c["count"]).label("uses"))
        .where(*_conditions(selection, scope, within))
        .group_by(table.c.outcome)
        .order_by(table.c.outcome)
    )
    return {row.outcome: int(row.uses) for row in rows}


def top(connection: Connection, selection: Selection, scope: Scope, within: Range, limit: int) -> list[tuple[str, int]]:
    """Return the groups with the highest counts."""
    table = _table(selection)
    group = _group(selection)
    if group is None:
        return []
    uses = func.sum(table.c["count"])
    rows = connection.execute(
        select(group.label("grouped"), uses.label("uses"))
        .where(*_conditions(selection, scope, within), *_real(selection))
        .group_by(group)
        .order_by(uses.desc(), group)
        .limit(limit)
    )
    return [(row.grouped, int(row.uses)) for row in rows]


def last_uses(connection: Connection, scope: Scope, owner: str | None, limit: int) -> Sequence[Row[Any]]:
    """Return the latest caller of each version, the latest first."""
    ranked = (
        select(
            *last_used.c,
            issued_key.c.keyspace.label("place"),
            func.row_number().over(partition_by=last_used.c.version, order_by=last_used.c["at"].desc()).label("rank"),
        )
        .join_from(last_used, issued_key, issued_key.c.id == last_used.c.key)
        .where(issued_key.c.keyspace.in_(scope.keyspaces), last_used.c.caller != OTHER)
    )
    if scope.key is not None:
        ranked = ranked.where(last_used.c.key == scope.key)
    if scope.version is not None:
        ranked = ranked.where(last_used.c.version == scope.version)
    if owner is not None:
        ranked = ranked.where(issued_key.c.owner == owner)
    found = ranked.subquery()
    return connection.execute(
        select(found).where(found.c.rank == 1).order_by(found.c["at"].desc(), found.c.version).limit(limit)
    ).all()


def losses(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """Return what nodes have lost, the latest first."""
    return connection.execute(
        select(usage_loss).order_by(usage_loss.c["at"].desc(), usage_loss.c.node).limit(limit)
    ).all()


def _table(selection: Selection) -> Any:  # noqa: ANN401 -- one of two tables with different columns
    return usage_rollup if selection.dimension is None else usage_dimension


def _group(selection: Selection) -> ColumnElement[str] | None:
    table = _table(selection)
    by = selection.group_by
    if by is None:
        return None
    found: ColumnElement[str] = (
        table.c[str(by)]
        if by in {Dimension.OUTCOME, Dimension.KEY, Dimension.VERSION, Dimension.KEYSPACE}
        else usage_dimension.c.value
    )
    return found


def _conditions(selection: Selection, scope: Scope, within: Range) -> list[ColumnElement[bool]]:
    table = _table(selection)
    found = [
        table.c.keyspace.in_(scope.keyspaces),
        table.c.period == str(within.period),
        table.c.start >= within.first,
        table.c.start < within.last,
    ]
    if selection.outcome is not None:
        found.append(table.c.outcome == selection.outcome)
    if selection.owner is not None:
        owned = select(issued_key.c.id).where(
            issued_key.c.keyspace.in_(scope.keyspaces), issued_key.c.owner == selection.owner
        )
        found.append(table.c.key.in_(owned))
    if selection.dimension is None:
        if scope.version is not None:
            found.append(usage_rollup.c.version == scope.version)
    else:
        found.append(usage_dimension.c.dimension == str(selection.dimension))
        if selection.value is not None:
            found.append(usage_dimension.c.value == selection.value)
        if not selection.of_keys:
            found.append(usage_dimension.c.key == "")
    if scope.key is not None:
        found.append(table.c.key == scope.key)
    elif selection.of_keys and selection.dimension is not None and selection.owner is None:
        found.append(table.c.key != "")
    return found


def _real(selection: Selection) -> list[ColumnElement[bool]]:
    if selection.outcome is not None:
        return []
    return [not_(_table(selection).c.outcome.startswith(SHADOW, autoescape=True))]
