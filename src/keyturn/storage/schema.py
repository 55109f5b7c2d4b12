"""Every table, with typed columns.

Times are epoch seconds (UTC, double), structured values are JSON text, ids are text.  No row is ever
deleted by an operation: states change, and retention jobs say what they remove.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


# --- the spine -----------------------------------------------------------------------------------


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


workspace_key = Table("workspace_key", metadata, _WorkspaceKey)


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


# --- audit ---------------------------------------------------------------------------------------


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


# --- access --------------------------------------------------------------------------------------


class _Workspace(TypedColumns):
    id = Column(Text, primary_key=True)
    name: Named[str] = Column(Text, unique=True)
    state: Named[str] = Column(Text)
    keys_max: Named[int | None] = Column(Integer)
    keys_per_owner_max: Named[int | None] = Column(Integer)
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


# --- keys ----------------------------------------------------------------------------------------


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


# --- quotas --------------------------------------------------------------------------------------


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


# --- usage ---------------------------------------------------------------------------------------


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


# --- webhooks ------------------------------------------------------------------------------------


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
