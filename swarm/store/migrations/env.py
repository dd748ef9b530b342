"""What Alembic runs: migrate the connection it was handed, within the transaction begun there."""

from alembic import context

from swarm.store.tables import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
