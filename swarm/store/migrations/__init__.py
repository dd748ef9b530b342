"""Alembic migrations, run by `swarm.store.database`; there is no `alembic.ini`."""
