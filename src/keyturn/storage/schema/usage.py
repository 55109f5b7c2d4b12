"""Tables of usage rollups and of what was lost."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Named,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypedColumns,
)

from keyturn.storage.schema.metadata import metadata


class _UsageRollup(TypedColumns):
    key: Named[str] = Column(Text)
    version: Named[str] = Column(Text)
    period: Named[str] = Column(Text)
    start: Named[int] = Column(BigInteger)
    outcome: Named[str] = Column(Text)
    workspace: Named[str] = Column(Text)
    keyspace: Named[str] = Column(Text)
    count: Named[int] = Column(BigInteger)


usage_rollup = Table(
    "usage_rollup",
    metadata,
    _UsageRollup,
    PrimaryKeyConstraint("key", "version", "period", "start", "outcome"),
    Index(None, "workspace", "period", "start"),
)


class _LastUsed(TypedColumns):
    version: Named[str] = Column(Text)
    caller: Named[str] = Column(Text)
    key: Named[str] = Column(Text, index=True)
    workspace: Named[str] = Column(Text)
    first_at: Named[float] = Column(Double)
    at: Named[float] = Column(Double)
    ip_network: Named[str | None] = Column(Text)
    user_agent: Named[str | None] = Column(Text)
    endpoint: Named[str | None] = Column(Text)
    count: Named[int] = Column(BigInteger)


last_used = Table("last_used", metadata, _LastUsed, PrimaryKeyConstraint("version", "caller"))
"""One row for each distinct caller of a version, capped; `caller` is a hash of network, user agent and endpoint."""


class _UsageDimension(TypedColumns):
    keyspace: Named[str] = Column(Text)
    key: Named[str] = Column(Text)
    dimension: Named[str] = Column(Text)
    period: Named[str] = Column(Text)
    start: Named[int] = Column(BigInteger)
    value: Named[str] = Column(Text)
    outcome: Named[str] = Column(Text)
    workspace: Named[str] = Column(Text)
    count: Named[int] = Column(BigInteger)


usage_dimension = Table(
    "usage_dimension",
    metadata,
    _UsageDimension,
    PrimaryKeyConstraint("keyspace", "key", "dimension", "period", "start", "value", "outcome"),
    Index(None, "dimension", "period", "start"),
)
"""Counts by owner, keyspace, endpoint and the like; `key` is empty in those that are of a keyspace as a whole."""


class _UsageWriter(TypedColumns):
    node = Column(Text, primary_key=True)
    number: Named[int] = Column(BigInteger)
    written: Named[int] = Column(BigInteger)
    at: Named[float] = Column(Double, index=True)


usage_writer = Table("usage_writer", metadata, _UsageWriter)
"""How much of its usage a node has written: changed in the transaction that writes it."""


class _UsageLoss(TypedColumns):
    node = Column(Text, primary_key=True)
    at: Named[float] = Column(Double, index=True)
    counted: Named[int] = Column(BigInteger)
    written: Named[int] = Column(BigInteger)
    lost: Named[int] = Column(BigInteger)


usage_loss = Table("usage_loss", metadata, _UsageLoss)
"""What a node had counted and not written when it ended."""
