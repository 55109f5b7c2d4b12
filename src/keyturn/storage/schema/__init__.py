"""Every table, with typed columns.

Times are epoch seconds (UTC, double), structured values are JSON text, ids are text.  No row is ever
deleted by an operation: states change, and retention jobs say what they remove.
"""

from __future__ import annotations

from keyturn.storage.schema.access import (
    access_grant,
    principal,
    role,
    role_member,
    workspace,
)
from keyturn.storage.schema.audit import (
    audit_checkpoint,
    audit_handover,
    audit_leaf,
    audit_tile,
    audit_tree,
)
from keyturn.storage.schema.keys import (
    issued_key,
    key_owner,
    key_tag,
    key_version,
    keyspace,
    plan,
)
from keyturn.storage.schema.leaks import (
    decoy,
    finding,
    finding_event,
    finding_place,
    leak_intake,
    leak_policy,
    leak_scan,
)
from keyturn.storage.schema.leases import (
    credential_role,
    credential_source,
    lease,
)
from keyturn.storage.schema.logins import (
    login_method,
    login_replay,
    login_role,
    login_secret,
    login_token,
)
from keyturn.storage.schema.metadata import metadata
from keyturn.storage.schema.quotas import (
    quota_account,
    quota_block,
    quota_line,
)
from keyturn.storage.schema.spine import (
    change,
    change_head,
    election,
    fact,
    idempotency,
    node,
    sealed_key,
    workspace_key,
)
from keyturn.storage.schema.usage import (
    last_used,
    usage_dimension,
    usage_loss,
    usage_rollup,
    usage_writer,
)
from keyturn.storage.schema.vault import (
    approval,
    guard,
    secret,
    secret_fingerprint,
    secret_read,
    secret_reference,
    secret_version,
    wrap,
)
from keyturn.storage.schema.webhooks import (
    usage_batch,
    webhook,
    webhook_attempt,
    webhook_cursor,
    webhook_delivery,
)

__all__ = [
    "access_grant",
    "approval",
    "audit_checkpoint",
    "audit_handover",
    "audit_leaf",
    "audit_tile",
    "audit_tree",
    "change",
    "change_head",
    "credential_role",
    "credential_source",
    "decoy",
    "election",
    "fact",
    "finding",
    "finding_event",
    "finding_place",
    "guard",
    "idempotency",
    "issued_key",
    "key_owner",
    "key_tag",
    "key_version",
    "keyspace",
    "last_used",
    "leak_intake",
    "leak_policy",
    "leak_scan",
    "lease",
    "login_method",
    "login_replay",
    "login_role",
    "login_secret",
    "login_token",
    "metadata",
    "node",
    "plan",
    "principal",
    "quota_account",
    "quota_block",
    "quota_line",
    "role",
    "role_member",
    "sealed_key",
    "secret",
    "secret_fingerprint",
    "secret_read",
    "secret_reference",
    "secret_version",
    "usage_batch",
    "usage_dimension",
    "usage_loss",
    "usage_rollup",
    "usage_writer",
    "webhook",
    "webhook_attempt",
    "webhook_cursor",
    "webhook_delivery",
    "workspace",
    "workspace_key",
    "wrap",
]
