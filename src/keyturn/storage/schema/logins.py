"""Tables of workload identity: login methods and roles, secret-ids, and the short-lived tokens they give."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)

from keyturn.storage.schema.metadata import metadata


class _LoginMethod(TypedColumns):
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


login_method = Table("login_method", metadata, _LoginMethod, UniqueConstraint("workspace", "name", "deleted_at"))
"""`deleted_at` is 0 while it exists; what is secret of its configuration is a sealed server key."""


class _LoginRole(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    method: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    role_id: Named[str] = Column(Text)
    principal: Named[str] = Column(Text)
    config_json: Named[str] = Column(Text)
    scopes_json: Named[str] = Column(Text)
    resources_json: Named[str] = Column(Text)
    ttl_seconds: Named[int] = Column(Integer)
    max_ttl_seconds: Named[int] = Column(Integer)
    tokens_max: Named[int] = Column(Integer)
    leases_max: Named[int] = Column(Integer)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


login_role = Table(
    "login_role",
    metadata,
    _LoginRole,
    UniqueConstraint("method", "name", "deleted_at"),
    UniqueConstraint("workspace", "role_id", "deleted_at"),
)
"""Whom a proven identity becomes: the principal, and what its tokens are bounded by."""


class _LoginSecret(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    role: Named[str] = Column(Text)
    lookup: Named[str] = Column(Text, unique=True)
    digest: Named[bytes] = Column(LargeBinary)
    metadata_json: Named[str] = Column(Text)
    cidrs_json: Named[str] = Column(Text)
    uses_left: Named[int | None] = Column(Integer)
    state: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    expires_at: Named[float | None] = Column(Double)
    last_used_at: Named[float | None] = Column(Double)


login_secret = Table("login_secret", metadata, _LoginSecret, Index(None, "role", "state"))
"""The secret-ids of AppRole; `id` is the accessor, `lookup` the public part of the secret."""


class _LoginToken(TypedColumns):
    id = Column(Text, primary_key=True)
    lookup: Named[str] = Column(Text, unique=True)
    workspace: Named[str] = Column(Text)
    principal: Named[str] = Column(Text)
    method: Named[str | None] = Column(Text)
    role: Named[str | None] = Column(Text)
    parent: Named[str | None] = Column(Text)
    subject: Named[str] = Column(Text)
    digest: Named[bytes] = Column(LargeBinary)
    scopes_json: Named[str] = Column(Text)
    resources_json: Named[str] = Column(Text)
    cidrs_json: Named[str] = Column(Text)
    metadata_json: Named[str] = Column(Text)
    renewable: Named[bool] = Column(Boolean)
    ttl_seconds: Named[int] = Column(Integer)
    state: Named[str] = Column(Text)
    mark: Named[bytes | None] = Column(LargeBinary)
    sealed: Named[bytes | None] = Column(LargeBinary)
    created_at: Named[float] = Column(Double)
    expires_at: Named[float] = Column(Double, index=True)
    max_expires_at: Named[float] = Column(Double)
    revoked_at: Named[float | None] = Column(Double)


login_token = Table(
    "login_token",
    metadata,
    _LoginToken,
    Index(None, "role", "state", "expires_at"),
    Index(None, "parent"),
    UniqueConstraint("role", "mark"),
)
"""Tokens that a login gave; they are in no replica, key list or change log.

`mark` is a hash of the credential and `sealed` the token under it, so that the same login gives the same token.
"""


class _LoginReplay(TypedColumns):
    id = Column(Text, primary_key=True)
    expires_at: Named[float] = Column(Double, index=True)


login_replay = Table("login_replay", metadata, _LoginReplay)
"""Hashes of assertions that may be used once and were."""
