"""A version and a request, as verify counts them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from keyturn.storage.database import Database
from keyturn.storage.schema import usage_dimension, usage_rollup
from keyturn.usage import store
from keyturn.verify.model import Request, VersionPolicy
from keyturn.verify.replica import Replica
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, PepperRecord, VersionRecord
from keyturn.wire.usage import VersionUse

AT = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def version(number: int = 1, *, key: str = "key_a") -> VersionPolicy:
    """Return the version `v<number>` of a key."""
    replica = Replica()
    replica.load_keyspace(
        KeyspaceRecord(
            id="ksp_1",
            workspace="wsp_1",
            name="orders",
            prefix="acme",
            tag="live",
            environment="production",
            state="active",
            stale_after_seconds=60.0,
            peppers=(PepperRecord(1, bytes(32)),),
        )
    )
    one = VersionRecord(id=f"v{number}", number=number, state="current", digest_kind="blake2b", digest=b"", pepper=1)
    record = KeyRecord(id=key, keyspace="ksp_1", owner="o", environment="production", state="active", versions=(one,))
    replica.apply_key(record, key)
    found = replica.version(one.id)
    assert found is not None
    return found


def request(**told: Any) -> Request:
    """Return a request that says what is told."""
    return Request("not looked at", **told)


async def rollups(database: Database) -> dict[tuple[str, str, str, int], int]:
    """Return every count by version, outcome, period and start."""
    rows = await database.read(
        lambda c: c.execute(
            select(
                usage_rollup.c.version,
                usage_rollup.c.outcome,
                usage_rollup.c.period,
                usage_rollup.c.start,
                usage_rollup.c["count"].label("uses"),
            )
        ).all()
    )
    return {(row.version, row.outcome, row.period, row.start): row.uses for row in rows}


async def dimensions(database: Database, dimension: str, period: str = "hour", *, key: str = "") -> dict[str, int]:
    """Return the counts of every value, of one key or of its keyspace as a whole."""
    table = usage_dimension.c
    rows = await database.read(
        lambda c: c.execute(
            select(table.value, func.sum(table["count"]).label("uses"))
            .where(table.dimension == dimension, table.period == period, table.key == key)
            .group_by(table.value)
        ).all()
    )
    return {row.value: int(row.uses) for row in rows}


async def uses(database: Database, *versions: str) -> dict[str, VersionUse]:
    """Return who used the versions."""
    return await database.read(lambda c: store.uses(c, versions))
