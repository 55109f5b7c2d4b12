"""Quota accounts, blocks and the ledger.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_account()
    _create_block()
    _create_line()


def _create_account() -> None:
    op.create_table(
        "quota_account",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.Double(), nullable=False),
        sa.Column("ends_at", sa.Double(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("granted", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("leased", sa.BigInteger(), nullable=False),
        sa.Column("stranded", sa.BigInteger(), nullable=False),
        sa.Column("by_rule", sa.BigInteger(), nullable=False),
        sa.Column("refill_amount", sa.BigInteger(), nullable=True),
        sa.Column("refill_every", sa.Text(), nullable=True),
        sa.Column("refill_day", sa.Integer(), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("spend_line", sa.BigInteger(), nullable=False),
        sa.Column("spend_hour", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_account")),
    )
    op.create_index(op.f("ix_quota_account_due_at"), "quota_account", ["due_at"], unique=False)
    op.create_index(
        op.f("ix_quota_account_workspace_subject_name_starts_at"),
        "quota_account",
        ["workspace", "subject", "name", "starts_at"],
        unique=False,
    )


def _create_block() -> None:
    op.create_table(
        "quota_block",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("credited", sa.BigInteger(), nullable=False),
        sa.Column("log_id", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("leased_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_block")),
    )
    op.create_index(op.f("ix_quota_block_account"), "quota_block", ["account"], unique=False)
    op.create_index(op.f("ix_quota_block_node"), "quota_block", ["node"], unique=False)
    op.create_index(op.f("ix_quota_block_state_lease_until"), "quota_block", ["state", "lease_until"], unique=False)


def _create_line() -> None:
    op.create_table(
        "quota_line",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("granted", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("stranded", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("block", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "number", name=op.f("pk_quota_line")),
    )
