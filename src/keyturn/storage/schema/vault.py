"""Tables of held secrets, of who has read them, of four-eyes approval, and of wrapped answers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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
)

from keyturn.storage.schema.metadata import metadata

_ORDERED = Text().with_variant(Text(collation="C"), "postgresql")
"""Text ordered by its bytes, on either database, so that what begins alike lies together."""


class _Secret(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    path: Named[str] = Column(_ORDERED)
    environment: Named[str] = Column(Text)
    owner: Named[str] = Column(Text)
    purpose: Named[str] = Column(Text)
    provider: Named[str] = Column(Text)
    revocation_path: Named[str] = Column(Text)
    metadata_json: Named[str] = Column(Text)
    next_rotation_at: Named[float | None] = Column(Double)
    expires_at: Named[float | None] = Column(Double)
    current: Named[int] = Column(Integer)
    last_number: Named[int] = Column(Integer)
    last_sequence: Named[int] = Column(Integer)
    versions_max: Named[int] = Column(Integer)
    cas_required: Named[bool] = Column(Boolean)
    delete_after_seconds: Named[int | None] = Column(Integer)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


secret = Table(
    "secret",
    metadata,
    _Secret,
    UniqueConstraint("workspace", "path", "deleted_at"),
    Index(None, "workspace", "owner"),
    Index(None, "workspace", "next_rotation_at"),
)
"""`deleted_at` is 0 while the secret exists, so that a path is free again after its removal.

`current` is the number of the current version, 0 when there is none.
"""


class _SecretVersion(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    secret: Named[str] = Column(Text)
    sequence: Named[int] = Column(Integer)
    number: Named[int | None] = Column(Integer)
    state: Named[str] = Column(Text)
    sealed: Named[bytes | None] = Column(LargeBinary)
    fields_json: Named[str] = Column(Text)
    size_bytes: Named[int] = Column(Integer)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    promoted_at: Named[float | None] = Column(Double)
    delete_at: Named[float | None] = Column(Double)
    deleted_at: Named[float | None] = Column(Double)
    destroyed_at: Named[float | None] = Column(Double)


secret_version = Table(
    "secret_version",
    metadata,
    _SecretVersion,
    UniqueConstraint("secret", "sequence"),
    UniqueConstraint("secret", "number"),
    Index(None, "delete_at"),
)
"""`sequence` counts versions as they are written; `number` is given on promotion, so that the latest is current.

Sealed for purpose `secret`, the path `<secret id>/<path>` and the version `sequence`.
"""


class _SecretRead(TypedColumns):
    workspace: Named[str] = Column(Text)
    secret: Named[str] = Column(Text)
    sequence: Named[int] = Column(Integer)
    consumer: Named[str] = Column(Text)
    principal: Named[str] = Column(Text)
    subject: Named[str] = Column(Text)
    first_at: Named[float] = Column(Double)
    last_at: Named[float] = Column(Double)
    reads: Named[int] = Column(BigInteger)
    ip_network: Named[str] = Column(Text)
    user_agent: Named[str] = Column(Text)


secret_read = Table("secret_read", metadata, _SecretRead, PrimaryKeyConstraint("secret", "sequence", "consumer"))
"""Who has received which version: a consumer is a principal with the subject it logged in as.

The row is written with the first read, before the value leaves; later reads are added up.
"""


class _SecretFingerprint(TypedColumns):
    workspace: Named[str] = Column(Text)
    fingerprint: Named[bytes] = Column(LargeBinary)
    secret: Named[str] = Column(Text)
    sequence: Named[int] = Column(Integer)
    field: Named[str] = Column(Text)


secret_fingerprint = Table(
    "secret_fingerprint",
    metadata,
    _SecretFingerprint,
    PrimaryKeyConstraint("secret", "sequence", "field"),
    Index(None, "workspace", "fingerprint"),
)
"""Keyed hashes of field values, by which equal values are found without showing any."""


class _SecretReference(TypedColumns):
    workspace: Named[str] = Column(Text)
    secret: Named[str] = Column(Text)
    sequence: Named[int] = Column(Integer)
    target: Named[str] = Column(Text)
    field: Named[str] = Column(Text)


secret_reference = Table(
    "secret_reference",
    metadata,
    _SecretReference,
    PrimaryKeyConstraint("secret", "sequence", "target", "field"),
    Index(None, "workspace", "target"),
)
"""Which versions hold a reference to which path and field."""


class _Guard(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    pattern: Named[str] = Column(Text)
    actions_json: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    valid_seconds: Named[int] = Column(Integer)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    revoked_at: Named[float | None] = Column(Double)


guard = Table("guard", metadata, _Guard, Index(None, "workspace", "revoked_at"))
"""Paths whose listed actions need the approval of a second person."""


class _Approval(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    requester: Named[str] = Column(Text)
    action: Named[str] = Column(Text)
    resource: Named[str] = Column(Text)
    reason: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    created_at: Named[float] = Column(Double)
    expires_at: Named[float] = Column(Double)
    decided_by: Named[str | None] = Column(Text)
    decided_at: Named[float | None] = Column(Double)
    decision_reason: Named[str] = Column(Text)
    valid_until: Named[float | None] = Column(Double)
    uses: Named[int] = Column(Integer)
    revision: Named[int] = Column(Integer)


approval = Table(
    "approval",
    metadata,
    _Approval,
    Index(None, "workspace", "state"),
    Index(None, "workspace", "requester", "resource"),
)


class _Wrap(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    digest: Named[bytes] = Column(LargeBinary)
    creation_path: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    sealed: Named[bytes | None] = Column(LargeBinary)
    ttl_seconds: Named[int] = Column(Integer)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    expires_at: Named[float] = Column(Double, index=True)
    used_at: Named[float | None] = Column(Double)


wrap = Table("wrap", metadata, _Wrap)
"""An answer that one holder of a token may open once; sealed under that token, so nothing in the database opens it."""
