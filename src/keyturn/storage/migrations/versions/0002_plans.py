"""Plans, owners, and limits and quotas on keyspaces and keys.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("keyspace", "issued_key"):
        for column in ("limits_json", "quotas_json", "shadow_restrictions_json"):
            op.add_column(table, sa.Column(column, sa.Text(), nullable=True))
    op.add_column("keyspace", sa.Column("default_plan", sa.Text(), nullable=True))
    op.add_column("issued_key", sa.Column("plan", sa.Text(), nullable=True))
    op.create_index(
        op.f("ix_issued_key_plan_keyspace"),
        "issued_key",
        ["plan", "keyspace"],
        sqlite_where=sa.text("plan IS NOT NULL"),
        postgresql_where=sa.text("plan IS NOT NULL"),
    )
    op.create_table(
        "plan",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("scopes_json", sa.Text(), nullable=False),
        sa.Column("limits_json", sa.Text(), nullable=True),
        sa.Column("quotas_json", sa.Text(), nullable=True),
        sa.Column("restrictions_json", sa.Text(), nullable=True),
        sa.Column("shadow_restrictions_json", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_plan_workspace_name")),
    )
    op.create_table(
        "key_owner",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("limits_json", sa.Text(), nullable=True),
        sa.Column("quotas_json", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_owner")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_key_owner_workspace_name")),
    )
