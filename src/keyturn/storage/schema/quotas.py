"""Tables of balances and their ledger."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    Named,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypedColumns,
)

from keyturn.storage.schema.metadata import metadata


class _QuotaAccount(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    subject: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    period: Named[str] = Column(Text)
    starts_at: Named[float] = Column(Double)
    ends_at: Named[float | None] = Column(Double)
    state: Named[str] = Column(Text)
    granted: Named[int] = Column(BigInteger)
    spent: Named[int] = Column(BigInteger)
    leased: Named[int] = Column(BigInteger)
    stranded: Named[int] = Column(BigInteger)
    by_rule: Named[int] = Column(BigInteger)
    refill_amount: Named[int | None] = Column(BigInteger)
    refill_every: Named[str | None] = Column(Text)
    refill_day: Named[int | None] = Column(Integer)
    due_at: Named[float | None] = Column(Double, index=True)
    lines: Named[int] = Column(BigInteger)
    spend_line: Named[int] = Column(BigInteger)
    spend_hour: Named[int] = Column(BigInteger)
    created_at: Named[float] = Column(Double)


quota_account = Table(
    "quota_account", metadata, _QuotaAccount, Index(None, "workspace", "subject", "name", "starts_at")
)
"""A balance of one period; `id` is a hash of whose it is.  What is available is granted - spent - leased - stranded."""


class _QuotaBlock(TypedColumns):
    id = Column(Text, primary_key=True)
    account: Named[str] = Column(Text, index=True)
    node: Named[str] = Column(Text, index=True)
    state: Named[str] = Column(Text)
    units: Named[int] = Column(BigInteger)
    spent: Named[int] = Column(BigInteger)
    credited: Named[int] = Column(BigInteger)
    log_id: Named[str] = Column(Text)
    lease_until: Named[float] = Column(Double)
    leased_at: Named[float] = Column(Double)


quota_block = Table("quota_block", metadata, _QuotaBlock, Index(None, "state", "lease_until"))
"""Units that a node holds, or was last known to hold; a block that was settled has no row."""


class _QuotaLine(TypedColumns):
    account: Named[str] = Column(Text)
    number: Named[int] = Column(BigInteger)
    at: Named[float] = Column(Double)
    kind: Named[str] = Column(Text)
    units: Named[int] = Column(BigInteger)
    granted: Named[int] = Column(BigInteger)
    spent: Named[int] = Column(BigInteger)
    stranded: Named[int] = Column(BigInteger)
    actor: Named[str] = Column(Text)
    note: Named[str] = Column(Text)
    block: Named[str | None] = Column(Text)


quota_line = Table("quota_line", metadata, _QuotaLine, PrimaryKeyConstraint("account", "number"))
"""The ledger: `granted`, `spent` and `stranded` are what a line adds to those columns of its account."""
