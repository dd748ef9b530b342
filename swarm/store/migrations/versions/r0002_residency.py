"""What loading took: bytes, evictions; how prompts were shortened; embeddings."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A default for what was recorded before; what is new always says it.
    op.add_column(
        "batches", sa.Column("load_bytes", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column(
        "batches",
        sa.Column("prefetched", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column("batches", sa.Column("evicted", sa.Text, nullable=False, server_default="[]"))
    op.add_column(
        "batches", sa.Column("evict_seconds", sa.Double, nullable=False, server_default="0")
    )
    op.add_column("calls", sa.Column("shortened", sa.Text))
    op.create_table(
        "embeddings",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_embeddings"),
    )
