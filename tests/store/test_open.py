"""Where a store can be, and what is said where it can't."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, make_url, text

from swarm.errors import MissingPackageError, StoreURLError, StoreVersionError
from swarm.store import Store


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}"])
def test_a_path_and_its_urls_are_one_store(tmp_path, form):
    path = tmp_path / "swarm.db"
    with Store.open(path) as store:
        run = store.start_run("job", "x", {})
    with Store.open(form.format(path)) as store:
        assert store.run(run).name == "x"
        assert store.url == f"sqlite:///{path}"


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("swarm.db"), Store.open("sqlite:///swarm.db", create=False):
        assert (tmp_path / "swarm.db").exists()


def test_a_store_in_memory_is_gone_when_it_is_closed():
    for _ in range(2):
        with Store.open("sqlite://") as store:
            assert store.start_run("job", "x", {}) == 1


def test_a_second_opening_finds_what_the_first_wrote(url):
    with Store.open(url) as store:
        store.start_run("job", "x", {})
    with Store.open(url, create=False) as store:
        assert [run.name for run in store.runs()] == ["x"]


def test_opening_a_store_that_is_up_to_date_does_not_load_alembic(tmp_path):
    path = str(tmp_path / "swarm.db")
    Store.open(path).close()
    code = "import sys; from swarm.store import Store; Store.open(sys.argv[1]); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "sqlalchemy" in loaded
    assert "alembic" not in loaded


def refusal(url, error=StoreURLError, **options) -> str:
    with pytest.raises(error) as refused:
        Store.open(url, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "'' can't be where a store is: give a path"),
        ("sqlite:swarm.db", "`sqlite:swarm.db` is not a URL"),
        ("mysql://me@here/swarm", "`mysql` is not a database a store can be in: use `sqlite`"),
        ("postgresq://here/swarm", "did you mean `postgresql`?"),
        ("sqlite+aiosqlite:///swarm.db", "`sqlite+aiosqlite` is not"),
        ("postgresql://me:secret@here:port/swarm", "`postgresql://…` can't be read as a URL"),
        ("://", "can't be read as a URL"),
        ("sqlite:///swarm.db?mode=ro", "leave out the `?…`"),
        ("/nowhere/to/be/found/swarm.db", "no directory `/nowhere/to/be/found`"),
        ("/", "`/` is a directory"),
        ("x" * 300, "can't be looked at"),
        ("nul\0.db", "can't be where a store is"),
    ],
)
def test_a_url_that_can_not_be_a_store(url, said):
    message = refusal(url)
    assert said in message
    assert "secret" not in message


def test_a_store_that_must_exist_and_does_not(url, tmp_path):
    assert "no store" in refusal(url, create=False) or "is empty" in refusal(url, create=False)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 100)
    assert "another kind of file is there: give another path" in refusal(path)
    assert path.read_text() == "Dear diary, " * 100
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
        raw.execute("CREATE TABLE runs (id INTEGER)")
    before = path.read_bytes()
    assert "belongs to another program (it has a table `alembic_version`" in refusal(path)
    assert path.read_bytes() == before


def test_another_programs_schema_is_left_alone(postgres_url):
    engine = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE runs (id INTEGER)"))
    engine.dispose()
    assert "belongs to another program (it has a table `runs`" in refusal(postgres_url)


def test_a_store_of_a_newer_version(url):
    Store.open(url).close()
    driver = "postgresql+psycopg" if url.startswith("postgresql") else "sqlite"
    engine = create_engine(make_url(url).set(drivername=driver))
    with engine.begin() as connection:
        connection.execute(text("UPDATE swarm_version SET version_num = '9999'"))
    engine.dispose()
    message = refusal(url, StoreVersionError)
    assert "has revision `9999`" in message
    assert "pip install -U agent-swarm" in message


@contextmanager
def as_nobody():
    """Without root's rights, which know no closed doors."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["directory", "file"])
def test_what_can_not_be_written_to(tmp_path, closed):
    path = tmp_path / "stores" / "swarm.db"
    path.parent.mkdir()
    Store.open(path).close()
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.owner() == path.owner() and folder.name.startswith(("pytest", "test")):
            folder.chmod(folder.stat().st_mode | 0o011)
    place = path if closed == "file" else path.parent
    path.parent.chmod(0o777)
    path.chmod(0o666)
    place.chmod(0o555)
    with as_nobody():
        assert f"`{place}` can't be written to: give yourself the right" in refusal(path)
    place.chmod(0o755)


def test_a_directory_that_can_not_be_looked_into(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with as_nobody():
        message = refusal(closed / "swarm.db")
    assert "can't be" in message
    closed.chmod(0o700)


def test_postgresql_without_its_driver_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = refusal("postgresql://me:secret@localhost/swarm", MissingPackageError)
    assert "pip install 'agent-swarm[postgres]'" in message


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_server_that_is_not_there(scheme):
    pytest.importorskip("psycopg")
    message = refusal(f"{scheme}://me:secret@127.0.0.1:1/swarm")
    assert "Connection refused" in message
    assert "secret" not in message
