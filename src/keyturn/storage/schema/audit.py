"""Tables of the audit log and its trees."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Named,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypedColumns,
)

from keyturn.storage.schema.metadata import metadata


class _AuditLeaf(TypedColumns):
    seq = Column(BigInteger, primary_key=True, autoincrement=False)
    id: Named[str] = Column(Text, unique=True)
    workspace: Named[str] = Column(Text)
    at: Named[float] = Column(Double)
    action: Named[str] = Column(Text)
    outcome: Named[str] = Column(Text)
    actor: Named[str] = Column(Text)
    resource: Named[str] = Column(Text)
    body: Named[bytes | None] = Column(LargeBinary)


audit_leaf = Table(
    "audit_leaf",
    metadata,
    _AuditLeaf,
    Index(None, "workspace", "seq"),
    Index(None, "workspace", "resource", "seq"),
    Index(None, "workspace", "actor", "seq"),
    Index(None, "workspace", "action", "seq"),
)
"""`body` holds the exact bytes of the leaf; NULL only after a recorded erasure (the hash stays in its tile)."""


class _AuditTree(TypedColumns):
    workspace = Column(Text, primary_key=True)
    size: Named[int] = Column(BigInteger)
    built_seq: Named[int] = Column(BigInteger)
    frontier: Named[bytes] = Column(LargeBinary)


audit_tree = Table("audit_tree", metadata, _AuditTree)


class _AuditTile(TypedColumns):
    workspace: Named[str] = Column(Text)
    level: Named[int] = Column(Integer)
    position: Named[int] = Column(BigInteger)
    hashes: Named[bytes] = Column(LargeBinary)


audit_tile = Table("audit_tile", metadata, _AuditTile, PrimaryKeyConstraint("workspace", "level", "position"))


class _AuditCheckpoint(TypedColumns):
    workspace: Named[str] = Column(Text)
    size: Named[int] = Column(BigInteger)
    seq: Named[int] = Column(BigInteger)
    root: Named[bytes] = Column(LargeBinary)
    note: Named[str] = Column(Text)
    signed_at: Named[float] = Column(Double)


audit_checkpoint = Table("audit_checkpoint", metadata, _AuditCheckpoint, PrimaryKeyConstraint("workspace", "size"))


class _AuditHandover(TypedColumns):
    workspace: Named[str] = Column(Text)
    size: Named[int] = Column(BigInteger)
    note: Named[str] = Column(Text)


audit_handover = Table("audit_handover", metadata, _AuditHandover, PrimaryKeyConstraint("workspace", "size"))
"""The checkpoints at which a new signing key took over, once more: they are asked for with every export."""
