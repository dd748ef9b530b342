"""What is the same for all tests.

No test is timed: a busy machine is no reason to fail.

PostgreSQL is the server `SWARM_TEST_POSTGRES` gives the URL of, else one that is started for the
tests if its programs are installed, else its tests are skipped. Each has a schema of its own there.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import create_engine, make_url, text

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts itself: tests
# that press it would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_schemas = itertools.count()


def _postgres_program(name):
    found = shutil.which(name)
    if found:
        return found
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else None


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL database."""
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    given = os.environ.get("SWARM_TEST_POSTGRES")
    if given:
        yield given
        return
    initdb, server = _postgres_program("initdb"), _postgres_program("pg_ctl")
    if initdb is None or server is None:
        pytest.skip("SWARM_TEST_POSTGRES is not set and no PostgreSQL server is installed")
    # Not under pytest's own folder: that one is closed to the user a root must hand over to.
    folder = Path(tempfile.mkdtemp(prefix="swarm-postgres-"))
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in known else "nobody"
        shutil.chown(folder, user)

    def run(*command):
        subprocess.run(
            command,
            check=True,
            user=user,
            cwd=folder,
            env={"LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
        )

    data = str(folder / "data")
    try:
        run(initdb, "--no-sync", "-A", "trust", "-U", "swarm", "-E", "UTF8", "-D", data)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run(server, "-w", "-D", data, "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://swarm@/postgres?host={folder}"
        finally:
            run(server, "-m", "immediate", "-D", data, "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres):
    """A schema of the server's database, empty."""
    schema = f"test_{os.getpid()}_{next(_schemas)}"
    engine = create_engine(make_url(postgres).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield f"{postgres}{'&' if '?' in postgres else '?'}options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
