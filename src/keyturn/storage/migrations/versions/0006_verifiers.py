"""Whose verifier a node is, and the batches of usage that verifiers have reported.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("workspace", "principal"):
        op.add_column("node", sa.Column(column, sa.Text(), nullable=True))
    op.create_table(
        "usage_batch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_batch")),
    )
    op.create_index(op.f("ix_usage_batch_at"), "usage_batch", ["at"])
