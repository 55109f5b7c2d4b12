"""The schema of the first release.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_fact()
    _create_change_head()
    _create_change()
    _create_node()
    _create_election()
    _create_workspace_key()
    _create_sealed_key()
    _create_idempotency()
    _create_audit_leaf()
    _create_audit_tree()
    _create_audit_tile()
    _create_audit_checkpoint()
    _create_workspace()
    _create_principal()
    _create_role()
    _create_role_member()
    _create_access_grant()
    _create_keyspace()
    _create_issued_key()
    _create_key_tag()
    _create_key_version()
    _create_usage_rollup()
    _create_last_used()


def _create_fact() -> None:
    op.create_table(
        "fact",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_fact")),
    )


def _create_change_head() -> None:
    op.create_table(
        "change_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("log_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("awaited", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_head")),
    )


def _create_change() -> None:
    op.create_table(
        "change",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_change")),
    )


def _create_node() -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("log_id", sa.Text(), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("registered_at", sa.Double(), nullable=False),
        sa.Column("confirmed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
    )


def _create_election() -> None:
    op.create_table(
        "election",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_election")),
    )


def _create_workspace_key() -> None:
    op.create_table(
        "workspace_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspace_key")),
    )
    op.create_index(op.f("ix_workspace_key_workspace"), "workspace_key", ["workspace"], unique=False)


def _create_sealed_key() -> None:
    op.create_table(
        "sealed_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sealed_key")),
        sa.UniqueConstraint(
            "workspace", "purpose", "path", "number", name=op.f("uq_sealed_key_workspace_purpose_path_number")
        ),
    )


def _create_idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)


def _create_audit_leaf() -> None:
    op.create_table(
        "audit_leaf",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_leaf")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_leaf_id")),
    )
    op.create_index(
        op.f("ix_audit_leaf_workspace_action_seq"), "audit_leaf", ["workspace", "action", "seq"], unique=False
    )
    op.create_index(
        op.f("ix_audit_leaf_workspace_actor_seq"), "audit_leaf", ["workspace", "actor", "seq"], unique=False
    )
    op.create_index(
        op.f("ix_audit_leaf_workspace_resource_seq"), "audit_leaf", ["workspace", "resource", "seq"], unique=False
    )
    op.create_index(op.f("ix_audit_leaf_workspace_seq"), "audit_leaf", ["workspace", "seq"], unique=False)


def _create_audit_tree() -> None:
    op.create_table(
        "audit_tree",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("built_seq", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_audit_tree")),
    )


def _create_audit_tile() -> None:
    op.create_table(
        "audit_tile",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "level", "position", name=op.f("pk_audit_tile")),
    )


def _create_audit_checkpoint() -> None:
    op.create_table(
        "audit_checkpoint",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "size", name=op.f("pk_audit_checkpoint")),
    )


def _create_workspace() -> None:
    op.create_table(
        "workspace",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("keys_max", sa.Integer(), nullable=True),
        sa.Column("keys_per_owner_max", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspace")),
        sa.UniqueConstraint("name", name=op.f("uq_workspace_name")),
    )


def _create_principal() -> None:
    op.create_table(
        "principal",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principal")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_principal_workspace_name")),
    )


def _create_role() -> None:
    op.create_table(
        "role",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_role_workspace_name")),
    )


def _create_role_member() -> None:
    op.create_table(
        "role_member",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("assigned_at", sa.Double(), nullable=False),
        sa.Column("assigned_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("role", "principal", name=op.f("pk_role_member")),
    )
    op.create_index(op.f("ix_role_member_principal"), "role_member", ["principal"], unique=False)


def _create_access_grant() -> None:
    op.create_table(
        "access_grant",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("actions_json", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("conditions_json", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_grant")),
    )
    op.create_index(op.f("ix_access_grant_subject"), "access_grant", ["subject"], unique=False)
    op.create_index(op.f("ix_access_grant_workspace_id"), "access_grant", ["workspace", "id"], unique=False)


def _create_keyspace() -> None:
    op.create_table(
        "keyspace",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("system", sa.Boolean(), nullable=False),
        sa.Column("stale_after_seconds", sa.Double(), nullable=False),
        sa.Column("stale_after_was", sa.Double(), nullable=True),
        sa.Column("stale_after_changed_at", sa.Double(), nullable=True),
        sa.Column("restrictions_json", sa.Text(), nullable=True),
        sa.Column("accepts_foreign", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keyspace")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_keyspace_workspace_name")),
    )


def _create_issued_key() -> None:
    op.create_table(
        "issued_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("keyspace", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("scopes_json", sa.Text(), nullable=False),
        sa.Column("restrictions_json", sa.Text(), nullable=True),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("tags_json", sa.Text(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("revoke_reason", sa.Text(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issued_key")),
    )
    op.create_index(op.f("ix_issued_key_keyspace_id"), "issued_key", ["keyspace", "id"], unique=False)
    op.create_index(op.f("ix_issued_key_workspace_id"), "issued_key", ["workspace", "id"], unique=False)
    op.create_index(op.f("ix_issued_key_workspace_owner_id"), "issued_key", ["workspace", "owner", "id"], unique=False)


def _create_key_tag() -> None:
    op.create_table(
        "key_tag",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "tag", "key", name=op.f("pk_key_tag")),
    )
    op.create_index(op.f("ix_key_tag_key"), "key_tag", ["key"], unique=False)


def _create_key_version() -> None:
    op.create_table(
        "key_version",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("keyspace", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("digest_kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("pepper", sa.Integer(), nullable=False),
        sa.Column("is_foreign", sa.Boolean(), nullable=False),
        sa.Column("lookup", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("valid_until", sa.Double(), nullable=True),
        sa.Column("retired_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_version")),
        sa.UniqueConstraint("key", "number", name=op.f("uq_key_version_key_number")),
    )
    op.create_index(op.f("ix_key_version_keyspace_digest"), "key_version", ["keyspace", "digest"], unique=False)
    op.create_index(op.f("ix_key_version_keyspace_lookup"), "key_version", ["keyspace", "lookup"], unique=False)
    op.create_index(op.f("ix_key_version_keyspace_pepper"), "key_version", ["keyspace", "pepper"], unique=False)


def _create_usage_rollup() -> None:
    op.create_table(
        "usage_rollup",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("keyspace", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "version", "period", "start", "outcome", name=op.f("pk_usage_rollup")),
    )
    op.create_index(
        op.f("ix_usage_rollup_workspace_period_start"), "usage_rollup", ["workspace", "period", "start"], unique=False
    )


def _create_last_used() -> None:
    op.create_table(
        "last_used",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("ip_network", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", "caller", name=op.f("pk_last_used")),
    )
    op.create_index(op.f("ix_last_used_key"), "last_used", ["key"], unique=False)
