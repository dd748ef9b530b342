"""Who may work on a run: one process at a time, let go by the operating system if it is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from swarm.errors import BusyError, StoreError

# A lock has two numbers: which store (several may share a database, in schemas) and which run.
_LOCK = text("SELECT pg_try_advisory_lock(hashtext('swarm ' || current_schema()), :run)")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtext('swarm ' || current_schema()), :run)")
_HOLDER = text(
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "JOIN pg_database ON pg_database.oid = database AND pg_database.datname = current_database() "
    "WHERE locktype = 'advisory' AND granted AND objid = :run AND objsubid = 2 "
    "AND classid::bigint = hashtext('swarm ' || current_schema())::bigint & 4294967295"
)


@contextmanager
def file_lock(database: Path, run: int) -> Iterator[None]:
    """Hold the run through a lock on a file beside its SQLite database; BusyError if it is held."""
    path = database.with_name(f"{database.name}-run{run}.lock")
    file = _open_locked(path, run)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes: afterwards it may be another's
        os.close(file)


def _open_locked(path: Path, run: int) -> int:
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"can't lock run {run}: {error}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(file, 32).decode()
            os.close(file)
            raise BusyError(_busy(run, f"process {pid}" if pid else "another process")) from None
        if _is_at(path, file):
            os.truncate(file, 0)
            os.write(file, str(os.getpid()).encode())
            return file
        os.close(file)  # its last holder has removed it since: lock the one that is there now


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def server_lock(engine: Engine, run: int) -> Iterator[None]:
    """Hold the run through an advisory lock of a PostgreSQL session; BusyError if it is held."""
    # A connection of its own: the lock must outlive every transaction, and end with the process.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.scalar(_LOCK, {"run": run}):
            holder = connection.scalar(_HOLDER, {"run": run})
            raise BusyError(_busy(run, holder or "another process"))
        try:
            yield
        finally:
            with suppress(DBAPIError):  # the server has hung up, and let go of it then
                connection.execute(_UNLOCK, {"run": run})


def _busy(run: int, holder: str) -> str:
    return f"run {run} is being worked on by {holder}: wait for it, or stop it and try again"
