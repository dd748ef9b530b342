"""One file a revision. A new one is also appended to `swarm.store.tables.REVISIONS`."""
