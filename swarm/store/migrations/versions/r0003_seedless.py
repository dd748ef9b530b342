"""Whether a batch was answered without the seed that it was asked with."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "batches", sa.Column("seedless", sa.Boolean, nullable=False, server_default=sa.false())
    )
