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
    AUDIT_KEY_ROTATE = "audit_key.rotate"
    AUDIT_KEY_RETIRE = "audit_key.retire"

    NODE_READ = "node.read"

    SECRET_LIST = "secret.list"  # noqa: S105 -- the name of an action, here and below
    SECRET_READ = "secret.read"  # noqa: S105
    SECRET_REVEAL = "secret.reveal"  # noqa: S105
    SECRET_PUT = "secret.put"  # noqa: S105
    SECRET_UPDATE = "secret.update"  # noqa: S105
    SECRET_DELETE = "secret.delete"  # noqa: S105
    SECRET_UNDELETE = "secret.undelete"  # noqa: S105
    SECRET_ROLLBACK = "secret.rollback"  # noqa: S105
    SECRET_PROMOTE = "secret.promote"  # noqa: S105
    SECRET_DESTROY = "secret.destroy"  # noqa: S105
    SECRET_REMOVE = "secret.remove"  # noqa: S105
    SECRET_SHARE = "secret.share"  # noqa: S105

    GUARD_CREATE = "guard.create"
    GUARD_READ = "guard.read"
    GUARD_REVOKE = "guard.revoke"
    APPROVAL_REQUEST = "approval.request"
    APPROVAL_READ = "approval.read"
    APPROVAL_DECIDE = "approval.decide"

    WRAP_CREATE = "wrap.create"

    LOGIN_METHOD_CREATE = "login_method.create"
    LOGIN_METHOD_READ = "login_method.read"
    LOGIN_METHOD_UPDATE = "login_method.update"
    LOGIN_METHOD_DELETE = "login_method.delete"
    LOGIN_ROLE_CREATE = "login_role.create"
    LOGIN_ROLE_READ = "login_role.read"
    LOGIN_ROLE_UPDATE = "login_role.update"
    LOGIN_ROLE_DELETE = "login_role.delete"
    SECRET_ID_ISSUE = "secret_id.issue"  # noqa: S105
    SECRET_ID_READ = "secret_id.read"  # noqa: S105
    SECRET_ID_REVOKE = "secret_id.revoke"  # noqa: S105
    LOGIN_TOKEN_ISSUE = "login_token.issue"  # noqa: S105
    LOGIN_TOKEN_READ = "login_token.read"  # noqa: S105
    LOGIN_TOKEN_RENEW = "login_token.renew"  # noqa: S105
    LOGIN_TOKEN_REVOKE = "login_token.revoke"  # noqa: S105

    CREDENTIAL_SOURCE_CREATE = "credential_source.create"
    CREDENTIAL_SOURCE_READ = "credential_source.read"
    CREDENTIAL_SOURCE_UPDATE = "credential_source.update"
    CREDENTIAL_SOURCE_DELETE = "credential_source.delete"
    CREDENTIAL_ROLE_CREATE = "credential_role.create"
    CREDENTIAL_ROLE_READ = "credential_role.read"
    CREDENTIAL_ROLE_UPDATE = "credential_role.update"
    CREDENTIAL_ROLE_DELETE = "credential_role.delete"
    LEASE_CREATE = "lease.create"
    LEASE_READ = "lease.read"
    LEASE_RENEW = "lease.renew"
    LEASE_REVOKE = "lease.revoke"
    LEASE_RESOLVE = "lease.resolve"

    FINDING_REPORT = "finding.report"
    FINDING_MATCH = "finding.match"
    FINDING_READ = "finding.read"
    FINDING_DECIDE = "finding.decide"
    LEAK_POLICY_CREATE = "leak_policy.create"
    LEAK_POLICY_READ = "leak_policy.read"
    LEAK_POLICY_UPDATE = "leak_policy.update"
    LEAK_POLICY_DELETE = "leak_policy.delete"
    LEAK_INTAKE_CREATE = "leak_intake.create"
    LEAK_INTAKE_READ = "leak_intake.read"
    LEAK_INTAKE_UPDATE = "leak_intake.update"
    LEAK_INTAKE_DELETE = "leak_intake.delete"
    DECOY_CREATE = "decoy.create"
    DECOY_READ = "decoy.read"
    DECOY_RETIRE = "decoy.retire"

    WORKSPACE_KEY_READ = "workspace_key.read"
    WORKSPACE_KEY_ROTATE = "workspace_key.rotate"
    WORKSPACE_KEY_RESEAL = "workspace_key.reseal"
    WORKSPACE_KEY_DESTROY = "workspace_key.destroy"
    ROOT_KEY_READ = "root_key.read"
    ROOT_KEY_REWRAP = "root_key.rewrap"

    # What the system itself records; never granted.
    AUTH_REFUSED = "auth.refused"
    AUTH_LOGIN = "auth.login"
    AUTH_RENEW = "auth.renew"
    AUTH_LOGOUT = "auth.logout"
    SYSTEM_UNWRAP = "system.unwrap"
    SYSTEM_ROOT_KEY = "system.root_key"
    SYSTEM_LEASE = "system.lease"
    SYSTEM_LEAK_REPORT = "system.leak_report"
    SYSTEM_LEAK_RESPONSE = "system.leak_response"
    SYSTEM_FINDING_CLOSED = "system.finding_closed"
    SYSTEM_DECOY_TRIPPED = "system.decoy_tripped"
    SYSTEM_RESTORE = "system.restore"
    SYSTEM_ADMIN_TOKEN = "system.admin_token"  # noqa: S105 -- the name of an action
    SYSTEM_ALARM = "system.alarm"
    SYSTEM_BOOTSTRAP = "system.bootstrap"


SYSTEM_ACTIONS = frozenset(action for action in Action if action.startswith(("auth.", "system.")))
GRANTABLE_ACTIONS = frozenset(Action) - SYSTEM_ACTIONS
