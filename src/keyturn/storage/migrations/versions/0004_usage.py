"""Usage by owner, endpoint and country, and what was lost of it.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_FILL = """
    INSERT INTO usage_dimension (keyspace, key, dimension, period, start, value, outcome, workspace, count)
    SELECT r.keyspace, '', '{dimension}', r.period, r.start, {value}, r.outcome, r.workspace, sum(r.count)
    FROM usage_rollup AS r JOIN issued_key AS k ON k.id = r.key
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""


def upgrade() -> None:
    op.create_table(
        "usage_dimension",
        sa.Column("keyspace", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "keyspace", "key", "dimension", "period", "start", "value", "outcome", name=op.f("pk_usage_dimension")
        ),
    )
    op.create_index(
        op.f("ix_usage_dimension_dimension_period_start"), "usage_dimension", ["dimension", "period", "start"]
    )
    op.create_table(
        "usage_writer",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_usage_writer")),
    )
    op.create_index(op.f("ix_usage_writer_at"), "usage_writer", ["at"])
    op.create_table(
        "usage_loss",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_usage_loss")),
    )
    op.create_index(op.f("ix_usage_loss_at"), "usage_loss", ["at"])
    # What was counted before is known by keyspace and owner too.
    op.execute(_FILL.format(dimension="keyspace", value="''"))
    op.execute(_FILL.format(dimension="owner", value="k.owner"))
