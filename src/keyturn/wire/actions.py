"""The names of everything a principal can do.

The same word stands in the permission, the audit leaf, the metric label, the CLI verb and the docs.
"""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """One operation, as `noun.verb`."""

    WORKSPACE_CREATE = "workspace.create"
    WORKSPACE_READ = "workspace.read"
    WORKSPACE_UPDATE = "workspace.update"

    PRINCIPAL_CREATE = "principal.create"
    PRINCIPAL_READ = "principal.read"
    PRINCIPAL_UPDATE = "principal.update"
    PRINCIPAL_DISABLE = "principal.disable"
    PRINCIPAL_ENABLE = "principal.enable"

    ROLE_CREATE = "role.create"
    ROLE_READ = "role.read"
    ROLE_ASSIGN = "role.assign"
    ROLE_UNASSIGN = "role.unassign"

    GRANT_CREATE = "grant.create"
    GRANT_READ = "grant.read"
    GRANT_REVOKE = "grant.revoke"
    GRANT_EXPLAIN = "grant.explain"

    TOKEN_ISSUE = "token.issue"  # noqa: S105 -- the name of an action
    TOKEN_READ = "token.read"  # noqa: S105 -- the name of an action
    TOKEN_REVOKE = "token.revoke"  # noqa: S105 -- the name of an action

    KEYSPACE_CREATE = "keyspace.create"
    KEYSPACE_READ = "keyspace.read"
    KEYSPACE_UPDATE = "keyspace.update"
    KEYSPACE_DISABLE = "keyspace.disable"
    KEYSPACE_ENABLE = "keyspace.enable"
    KEYSPACE_REPLICATE = "keyspace.replicate"
    PEPPER_ROTATE = "pepper.rotate"
    PEPPER_RETIRE = "pepper.retire"

    KEY_ISSUE = "key.issue"
    KEY_IMPORT = "key.import"
    KEY_READ = "key.read"
    KEY_UPDATE = "key.update"
    KEY_ROTATE = "key.rotate"
    KEY_RETIRE = "key.retire"
    KEY_DISABLE = "key.disable"
    KEY_ENABLE = "key.enable"
    KEY_REVOKE = "key.revoke"
    KEY_VERIFY = "key.verify"

    PLAN_CREATE = "plan.create"
    PLAN_READ = "plan.read"
    PLAN_UPDATE = "plan.update"
    PLAN_RETIRE = "plan.retire"

    OWNER_READ = "owner.read"
    OWNER_UPDATE = "owner.update"

    LIMIT_TAKE = "limit.take"

    QUOTA_READ = "quota.read"
    QUOTA_CREDIT = "quota.credit"

    USAGE_READ = "usage.read"

    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_READ = "webhook.read"
    WEBHOOK_UPDATE = "webhook.update"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_REDELIVER = "webhook.redeliver"

    AUDIT_READ = "audit.read"
    AUDIT_EXPORT = "audit.export"
    AUDIT_ERASE = "audit.erase"

    NODE_READ = "node.read"

    # What the system itself records; never granted.
    AUTH_REFUSED = "auth.refused"
    SYSTEM_RESTORE = "system.restore"
    SYSTEM_ADMIN_TOKEN = "system.admin_token"  # noqa: S105 -- the name of an action
    SYSTEM_ALARM = "system.alarm"
    SYSTEM_BOOTSTRAP = "system.bootstrap"


SYSTEM_ACTIONS = frozenset(action for action in Action if action.startswith(("auth.", "system.")))
GRANTABLE_ACTIONS = frozenset(Action) - SYSTEM_ACTIONS
