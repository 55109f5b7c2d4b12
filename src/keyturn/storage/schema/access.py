"""Tables of workspaces, principals, roles and grants."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Double,
    Index,
    Integer,
    Named,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)

from keyturn.storage.schema.metadata import metadata


class _Workspace(TypedColumns):
    id = Column(Text, primary_key=True)
    name: Named[str] = Column(Text, unique=True)
    state: Named[str] = Column(Text)
    keys_max: Named[int | None] = Column(Integer)
    keys_per_owner_max: Named[int | None] = Column(Integer)
    default_environment: Named[str] = Column(Text, server_default="production")
    created_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


workspace = Table("workspace", metadata, _Workspace)


class _Principal(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    kind: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    metadata_json: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    revision: Named[int] = Column(Integer)


principal = Table("principal", metadata, _Principal, UniqueConstraint("workspace", "name"))


class _Role(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)


role = Table("role", metadata, _Role, UniqueConstraint("workspace", "name"))


class _RoleMember(TypedColumns):
    role: Named[str] = Column(Text)
    principal: Named[str] = Column(Text, index=True)
    workspace: Named[str] = Column(Text)
    assigned_at: Named[float] = Column(Double)
    assigned_by: Named[str] = Column(Text)


role_member = Table("role_member", metadata, _RoleMember, PrimaryKeyConstraint("role", "principal"))


class _Grant(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    subject: Named[str] = Column(Text, index=True)
    actions_json: Named[str] = Column(Text)
    resource: Named[str] = Column(Text)
    conditions_json: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    revoked_at: Named[float | None] = Column(Double)


access_grant = Table("access_grant", metadata, _Grant, Index(None, "workspace", "id"))
"""`subject` is a principal id or a role id; the id's prefix tells which."""
