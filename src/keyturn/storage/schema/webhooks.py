"""Tables of endpoints and deliveries."""

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
    UniqueConstraint,
)

from keyturn.storage.schema.metadata import metadata


class _Webhook(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    name: Named[str] = Column(Text)
    url: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    events_json: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    state_reason: Named[str | None] = Column(Text)
    failing_since: Named[float | None] = Column(Double)
    overlap_until: Named[float | None] = Column(Double)
    since_seq: Named[int] = Column(BigInteger)
    created_at: Named[float] = Column(Double)
    created_by: Named[str] = Column(Text)
    updated_at: Named[float] = Column(Double)
    deleted_at: Named[float] = Column(Double)
    revision: Named[int] = Column(Integer)


webhook = Table("webhook", metadata, _Webhook, UniqueConstraint("workspace", "name", "deleted_at"))
"""`deleted_at` is 0 while the endpoint exists, so that a name is free again after a deletion."""


class _WebhookDelivery(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    webhook: Named[str] = Column(Text)
    event: Named[str] = Column(Text)
    seq: Named[int] = Column(BigInteger)
    type: Named[str] = Column(Text)
    body: Named[str] = Column(Text)
    state: Named[str] = Column(Text)
    attempts: Named[int] = Column(Integer)
    tries: Named[int] = Column(Integer)
    next_at: Named[float] = Column(Double)
    claimed_until: Named[float] = Column(Double)
    created_at: Named[float] = Column(Double)
    finished_at: Named[float | None] = Column(Double)
    last_status: Named[int | None] = Column(Integer)
    last_error: Named[str | None] = Column(Text)


webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    _WebhookDelivery,
    UniqueConstraint("webhook", "event"),
    Index(None, "webhook", "id"),
    Index(None, "webhook", "state", "next_at"),
    Index(None, "state", "finished_at"),
)
"""One event for one endpoint; `attempts` counts all of them, `tries` those since it was last sent again by hand."""


class _WebhookAttempt(TypedColumns):
    delivery: Named[str] = Column(Text)
    number: Named[int] = Column(Integer)
    at: Named[float] = Column(Double)
    duration_ms: Named[int] = Column(Integer)
    status: Named[int | None] = Column(Integer)
    error: Named[str | None] = Column(Text)
    excerpt: Named[str | None] = Column(Text)


webhook_attempt = Table("webhook_attempt", metadata, _WebhookAttempt, PrimaryKeyConstraint("delivery", "number"))


class _WebhookCursor(TypedColumns):
    id = Column(Integer, primary_key=True, autoincrement=False)
    seq: Named[int] = Column(BigInteger)


webhook_cursor = Table("webhook_cursor", metadata, _WebhookCursor)
"""One row: the last number of the log whose event has its deliveries."""


class _UsageBatch(TypedColumns):
    id = Column(Text, primary_key=True)
    workspace: Named[str] = Column(Text)
    principal: Named[str] = Column(Text)
    at: Named[float] = Column(Double, index=True)
    counted: Named[int] = Column(BigInteger)
    lost: Named[int] = Column(BigInteger)


usage_batch = Table("usage_batch", metadata, _UsageBatch)
"""What verifiers have reported, so that a batch that is sent twice counts once."""
