"""Tables of credentials made on demand: sources, roles, and the lease of each account."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, Named, Table, Text, TypedColumns, UniqueConstraint

from keyturn.storage.schema.metadata import metadata


class _CredentialSource(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    kind: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    config_json: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


credential_source = Table(
    "credential_source", metadata, _CredentialSource, UniqueConstraint("workspace", "name", "deleted_at")
)
"""`deleted_at` is 0 while it exists; the password it connects with is a sealed server key."""


class _CredentialRole(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    source: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    config_json: Named[str] = Column(Text)
    ttl_seconds: Named[int] = Column(Integer)
    max_ttl_seconds: Named[int] = Column(Integer)
    leases_max: Named[int] = Column(Integer)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


credential_role = Table("credential_role", metadata, _CredentialRole, UniqueConstraint("source", "name", "deleted_at"))


class _Lease(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    path: Named[str] = Column(Text)
    source: Named[str] = Column(Text)
    role: Named[str] = Column(Text)
    account: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    principal: Named[str] = Column(Text)
    subject: Named[str] = Column(Text)
    login_role: Named[str | None] = Column(Text)
    ttl_seconds: Named[int] = Column(Integer)
    created_at: Named[float] = Column(Double)
    expires_at: Named[float] = Column(Double)
    max_expires_at: Named[float] = Column(Double)
    due_at: Named[float | None] = Column(Double)
    claimed_until: Named[float] = Column(Double)
    attempts: Named[int] = Column(Integer)
    last_error: Named[str | None] = Column(Text)
    revoke_reason: Named[str | None] = Column(Text)
    revoked_at: Named[float | None] = Column(Double)
    revision: Named[int] = Column(Integer)


lease = Table(
    "lease",
    metadata,
    _Lease,
    UniqueConstraint("workspace", "path"),
    Index(None, "source", "due_at"),
    Index(None, "role", "state"),
    Index(None, "workspace", "principal", "state"),
    Index(None, "login_role", "state"),
)
"""`state`: as `keyturn.wire.leases.LeaseState`.

`due_at` is when something has to be done about it, so that a lease needs no timer.  It is null for one that is over, or
that only a person can end.
"""
