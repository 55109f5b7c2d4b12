"""Tables of keyspaces, issued keys, plans and owners."""

from __future__ import annotations

from sqlalchemy import (
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
    UniqueConstraint,
    text,
)

from keyturn.storage.schema.metadata import metadata


class _Keyspace(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    prefix: Named[str] = Column(Text)
    tag: Named[str] = Column(Text)
    environment: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    system: Named[bool]
    stale_after_seconds: Named[float] = Column(Double)
    stale_after_was: Named[float | None] = Column(Double)
    stale_after_changed_at: Named[float | None] = Column(Double)
    restrictions_json: Named[str | None] = Column(Text)
    accepts_foreign: Named[bool]
    description: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    revision: Named[int] = Column(Integer)
    default_plan: Named[str | None] = Column(Text)
    limits_json: Named[str | None] = Column(Text)
    quotas_json: Named[str | None] = Column(Text)
    shadow_restrictions_json: Named[str | None] = Column(Text)


keyspace = Table("keyspace", metadata, _Keyspace, UniqueConstraint("workspace", "name"))


class _IssuedKey(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    keyspace: Named[str] = Column(Text)
    environment: Named[str] = Column(Text)
    name: Named[str | None] = Column(Text)
    owner: Named[str] = Column(Text)
    purpose: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    scopes_json: Named[str] = Column(Text)
    restrictions_json: Named[str | None] = Column(Text)
    metadata_json: Named[str] = Column(Text)
    tags_json: Named[str] = Column(Text)
    not_before: Named[float | None] = Column(Double)
    expires_at: Named[float | None] = Column(Double)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    disabled_at: Named[float | None] = Column(Double)
    revoked_at: Named[float | None] = Column(Double)
    revoke_reason: Named[str | None] = Column(Text)
    revision: Named[int] = Column(Integer)
    plan: Named[str | None] = Column(Text)
    limits_json: Named[str | None] = Column(Text)
    quotas_json: Named[str | None] = Column(Text)
    shadow_restrictions_json: Named[str | None] = Column(Text)


issued_key = Table(
    "issued_key",
    metadata,
    _IssuedKey,
    Index(None, "workspace", "id"),
    Index(None, "workspace", "owner", "id"),
    Index(None, "keyspace", "id"),
    Index(
        None,
        "plan",
        "keyspace",
        sqlite_where=text("plan IS NOT NULL"),
        postgresql_where=text("plan IS NOT NULL"),
    ),
)


class _KeyTag(TypedColumns):
    key: Named[str] = Column(Text)
    workspace: Named[str] = Column(Text)
    tag: Named[str] = Column(Text)


key_tag = Table("key_tag", metadata, _KeyTag, PrimaryKeyConstraint("workspace", "tag", "key"), Index(None, "key"))


class _KeyVersion(TypedColumns):
    id = Column(Text, primary_key=True)
    key: Named[str] = Column(Text)
    keyspace: Named[str] = Column(Text)
    number: Named[int] = Column(Integer)
    state: Named[str] = Column(Text)
    digest_kind: Named[str] = Column(Text)
    digest: Named[bytes] = Column(LargeBinary)
    pepper: Named[int] = Column(Integer)
    foreign: Named[bool] = Column("is_foreign")
    lookup: Named[str | None] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    valid_until: Named[float | None] = Column(Double)
    retired_at: Named[float | None] = Column(Double)


key_version = Table(
    "key_version",
    metadata,
    _KeyVersion,
    UniqueConstraint("key", "number"),
    Index(None, "keyspace", "digest"),
    Index(None, "keyspace", "pepper"),
    Index(None, "keyspace", "lookup"),
)


class _Plan(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    scopes_json: Named[str] = Column(Text)
    limits_json: Named[str | None] = Column(Text)
    quotas_json: Named[str | None] = Column(Text)
    restrictions_json: Named[str | None] = Column(Text)
    shadow_restrictions_json: Named[str | None] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


plan = Table("plan", metadata, _Plan, UniqueConstraint("workspace", "name"))


class _KeyOwner(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    plan: Named[str | None] = Column(Text)
    limits_json: Named[str | None] = Column(Text)
    quotas_json: Named[str | None] = Column(Text)
    created_at: Named[float] = Column(Double)
    updated_at: Named[float] = Column(Double)
    updated_by: Named[str] = Column(Text)
    revision: Named[int] = Column(Integer)


key_owner = Table("key_owner", metadata, _KeyOwner, UniqueConstraint("workspace", "name"))
"""What holds for all keys whose owner has this name; most owners have no row."""
