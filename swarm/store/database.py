"""From a URL to a database that is known to be a store of the current revision, or a clear no."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    RootTransaction,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import StaticPool

from swarm.errors import MissingPackageError, StoreURLError, StoreVersionError, did_you_mean
from swarm.store.tables import REVISIONS, VERSION_TABLE

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_MIGRATION_LOCK = 0x737761726D
"""Held on PostgreSQL while migrating, so that two processes don't both create the tables."""
_WAL_PAUSE = 0.01
"""Seconds between two tries to let others read while one writes."""


def parse_url(url: str) -> URL:
    """`url`, or the path of an SQLite file, with the driver this package uses.

    Raises StoreURLError for what is neither.
    """
    if not url.strip() or "\0" in url:
        raise StoreURLError(f"{url!r} can't be where a store is: give a path such as `swarm.db`")
    if "://" not in url:
        if re.match(r"(sqlite|postgres)\w*:", url):
            raise StoreURLError(f"`{url}` is not a URL: two slashes or more must follow the colon")
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreURLError(
            f"`{url.partition('://')[0]}://…` can't be read as a URL: "
            "write `sqlite:///file.db` or `postgresql://user@host/database`"
        ) from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise StoreURLError(
            f"`{parsed.drivername}` is not a database a store can be in"
            f"{did_you_mean(parsed.drivername, _DRIVERS)}: use `sqlite` or `postgresql`"
        )
    if driver == "sqlite" and parsed.query:
        raise StoreURLError(f"`{url}` has options, which a file can't: leave out the `?…`")
    return parsed.set(drivername=driver)


def sqlite_path(url: URL) -> Path | None:
    """The database's file; None in memory and on a server."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    assert url.database is not None
    return Path(url.database).absolute()


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the file at `path` from any other that may be put there; None if it is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(url: URL, *, create: bool, timeout: float) -> Connection:
    """A connection to the store at `url`, brought up to date, with no transaction begun.

    Closing it is the caller's; its engine goes with it.
    """
    path = sqlite_path(url)
    if path is not None:
        _check_file(path, create)
    engine = _engine(url, timeout)
    try:
        connection = engine.connect()
        try:
            _bring_up_to_date(connection, create, timeout)
        except BaseException:
            connection.close()
            raise
    except DBAPIError as error:
        engine.dispose()
        raise StoreURLError(
            f"can't open the store `{url.render_as_string()}`: {cause(error)}"
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return connection


def cause(error: DBAPIError) -> str:
    """What the driver says, on one line and with what can be done about it."""
    said = " ".join(str(error.orig).split())
    for symptom, remedy in _REMEDIES.items():
        if symptom in said:
            return f"{said} ({remedy})"
    return said


_REMEDIES = {
    "file is not a database": "another kind of file is there: give another path",
    "database is locked": "another process is writing to it: try again when it is done",
    "lock timeout": "another process is writing to it: try again when it is done",
    "disk is full": "free some space, then run the same command again",
    "No space left": "free some space, then run the same command again",
    "readonly database": "give yourself the right to write there",
    "unable to open": "check the path and the right to write there",
    "disk I/O error": "check the disk the store is on",
    "Connection refused": "check that the server is running and the host and port are right",
    "server closed the connection": "check that the server is running, then run it again",
    "terminating connection": "check that the server is running, then run it again",
}


def _check_file(path: Path, create: bool) -> None:
    try:
        if path.is_dir():
            raise StoreURLError(f"`{path}` is a directory: give a file in it, as `{path}/swarm.db`")
        if not path.parent.is_dir():
            raise StoreURLError(f"there is no directory `{path.parent}` for the store: create it")
        if not path.exists() and not create:
            raise StoreURLError(f"there is no store at `{path}`: check the path")
    except (OSError, ValueError) as error:  # a name that is too long, a directory that is closed
        raise StoreURLError(f"`{path}` can't be looked at ({error}): give another path") from None
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK, effective_ids=True):
            raise StoreURLError(
                f"`{place}` can't be written to: give yourself the right, or use another path"
            )


def _engine(url: URL, timeout: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        # One connection and no pool: a memory database lives as long as its connection.
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", lambda raw, _: _set_up_sqlite(raw, timeout))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    name = f"swarm, process {os.getpid()} on {platform.node()}"  # for whom `lock_run` turns away
    try:
        engine = create_engine(url, connect_args={"application_name": name[:63]})
    except ImportError:  # also psycopg without its C library
        raise MissingPackageError("psycopg", "postgres", "a store in PostgreSQL") from None
    event.listen(engine, "connect", lambda raw, _: _set_up_postgresql(raw, timeout))
    return engine


def _set_up_sqlite(raw: Any, timeout: float) -> None:
    raw.isolation_level = None  # the driver's own BEGIN comes too late for reads and for DDL
    raw.execute(f"PRAGMA busy_timeout = {round(timeout * 1000)}")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA synchronous = NORMAL")  # in WAL: sound after a power cut


def _set_up_postgresql(raw: Any, timeout: float) -> None:
    raw.execute(f"SET lock_timeout = {round(timeout * 1000)}")
    raw.commit()


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options()["sqlite_begin"]
    if statement is not None:
        connection.exec_driver_sql(statement)


def begin(connection: Connection, *, writing: bool) -> RootTransaction:
    """Begin a transaction; one that may write must say so.

    (SQLite can't let one that has read wait for another writer: it would go on to write on what it
    no longer sees. So one that is going to write queues up at once.)
    """
    connection.execution_options(sqlite_begin="BEGIN IMMEDIATE" if writing else "BEGIN")
    return connection.begin()


def _bring_up_to_date(connection: Connection, create: bool, timeout: float) -> None:
    with begin(connection, writing=False):
        revision = _revision(connection)
    if revision == REVISIONS[-1]:
        return
    if revision is None:
        if not create:
            raise StoreURLError(
                f"the database `{_name(connection)}` is empty: check the URL, or record a run first"
            )
        if connection.dialect.name == "sqlite":
            _use_wal(connection, timeout)
    with begin(connection, writing=True):
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _MIGRATION_LOCK})
        if _revision(connection) != REVISIONS[-1]:  # nobody was faster
            _migrate(connection)


def _use_wal(connection: Connection, timeout: float) -> None:
    """Let others read while one writes; the file remembers it.

    SQLite does not wait here, whatever `busy_timeout` says, for another that is writing: so this
    does.
    """
    connection.execution_options(sqlite_begin=None)  # it can't be done in a transaction
    deadline = time.monotonic() + timeout
    while True:
        try:
            with connection.begin():
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() >= deadline:
                raise
        time.sleep(_WAL_PAUSE)


def _revision(connection: Connection) -> str | None:
    """The store's revision; None for an empty database. Refuses what is not a store."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise StoreURLError(
            f"the database `{_name(connection)}` belongs to another program "
            f"(it has a table `{sorted(tables)[0]}` and no `{VERSION_TABLE}`): give another one"
        )
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if revision not in REVISIONS:
        raise StoreVersionError(
            f"the store `{_name(connection)}` has revision `{revision}` and this version knows "
            f"`{REVISIONS[-1]}` at most: upgrade with pip install -U agent-swarm"
        )
    return str(revision)


def _name(connection: Connection) -> str:
    return connection.engine.url.render_as_string()


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
