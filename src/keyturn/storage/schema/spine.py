"""Tables of the spine: facts, the change log, nodes, elections, server keys, idempotency."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)

from keyturn.storage.schema.metadata import metadata


class _Fact(TypedColumns):
    name = Column(Text, primary_key=True)
    value: Named[str] = Column(Text)


fact = Table("fact", metadata, _Fact)
"""Facts about this database: `created_at`, `kek_check`, `serve_refused` and the like."""


class _ChangeHead(TypedColumns):
    id = Column(Integer, primary_key=True, autoincrement=False)
    log_id: Named[str] = Column(Text)
    seq: Named[int] = Column(BigInteger)
    awaited: Named[int] = Column(BigInteger)


change_head = Table("change_head", metadata, _ChangeHead)
"""One row.  `awaited` is the highest number some caller waits to see applied everywhere."""


class _Change(TypedColumns):
    seq = Column(BigInteger, primary_key=True, autoincrement=False)
    workspace: Named[str] = Column(Text)
    kind: Named[str] = Column(Text)
    entity: Named[str] = Column(Text)
    at: Named[float] = Column(Double)


change = Table("change", metadata, _Change)


class _Node(TypedColumns):
    id = Column(Text, primary_key=True)
    kind: Named[str] = Column(Text)
    label: Named[str] = Column(Text)
    log_id: Named[str] = Column(Text)
    applied: Named[int] = Column(BigInteger)
    registered_at: Named[float] = Column(Double)
    confirmed_at: Named[float] = Column(Double)
    workspace: Named[str | None] = Column(Text)
    principal: Named[str | None] = Column(Text)


node = Table("node", metadata, _Node)
"""Who may admit keys; `workspace` and `principal` are those of a verifier, and null for a server."""


class _Election(TypedColumns):
    name = Column(Text, primary_key=True)
    holder: Named[str] = Column(Text)
    until: Named[float] = Column(Double)


election = Table("election", metadata, _Election)


class _WorkspaceKey(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text, index=True)
    kek_id: Named[str] = Column(Text)
    wrapped: Named[bytes] = Column(LargeBinary)
    created_at: Named[float] = Column(Double)
    state: Named[str] = Column(Text, server_default="open")


workspace_key = Table("workspace_key", metadata, _WorkspaceKey)
"""`state` is open or destroyed; the newest open key of a workspace seals, every open one opens."""


class _SealedKey(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    purpose: Named[str] = Column(Text)
    path: Named[str] = Column(Text)
    number: Named[int] = Column(Integer)
    state: Named[str] = Column(Text)
    sealed: Named[bytes] = Column(LargeBinary)
    created_at: Named[float] = Column(Double)


sealed_key = Table("sealed_key", metadata, _SealedKey, UniqueConstraint("workspace", "purpose", "path", "number"))
"""Peppers, signing and HMAC keys, sealed under their workspace key."""


class _Idempotency(TypedColumns):
    id = Column(Text, primary_key=True)
    body_hash: Named[bytes] = Column(LargeBinary)
    entity: Named[str] = Column(Text)
    response: Named[bytes | None] = Column(LargeBinary)
    created_at: Named[float] = Column(Double, index=True)


idempotency = Table("idempotency", metadata, _Idempotency)
"""`id` = hash of principal, action and Idempotency-Key; `response` is sealed and dropped after 10 minutes."""
