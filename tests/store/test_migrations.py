"""A store made by any version of the package is brought to the tables of this one."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import store_samples as samples
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url

import swarm.store.migrations
from swarm.store import Store
from swarm.store.tables import REVISIONS, VERSION_TABLE, Base

DATA = Path(__file__).parent / "data"


def test_the_revisions_are_those_the_package_says_it_knows():
    config = Config()
    config.set_main_option("script_location", str(Path(swarm.store.migrations.__file__).parent))
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in revisions) == REVISIONS[::-1]


def test_migrations_lead_to_the_tables(url):
    Store.open(url).close()
    driver = "postgresql+psycopg" if url.startswith("postgresql") else "sqlite"
    engine = create_engine(make_url(url).set(drivername=driver))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def body(statement: str) -> str:
    """A statement without its last bracket, which stands elsewhere after a column was added."""
    return re.sub(r"\s*\)(\s*WITHOUT ROWID)?\s*$", r"\n\1", statement)


def schema(path: Path) -> dict[str, list[str]]:
    """Every table and index, by the parts of the statement that creates it."""
    with sqlite3.connect(path) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {
        # What was added by a later revision stands on the line of what came before it.
        name: sorted(part.strip(" ,\t") for part in re.split(r"\n|, (?=\w+ [A-Z])", body(sql)))
        for name, sql in rows
        if name != VERSION_TABLE
    }


def test_migrations_write_what_the_tables_would(tmp_path):
    """Also what `compare_metadata` overlooks: keys, constraints and tables without row ids."""
    Store.open(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/created.db")
    Base.metadata.create_all(engine)
    engine.dispose()
    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "created.db")


@pytest.mark.parametrize("dump", sorted(DATA.glob("rev*.sql")), ids=lambda path: path.stem)
def test_a_store_of_every_earlier_revision_is_read_whole(tmp_path, dump):
    path = tmp_path / "swarm.db"
    with sqlite3.connect(path) as raw:
        raw.executescript(dump.read_text(encoding="utf-8"))
    with Store.open(path) as store:
        [run] = store.runs()
        assert (run.kind, run.name, run.status) == ("job", "first", "done")
        assert (run.settings, run.summary) == ({"particles": 10}, {"score": 0.5})
        assert store.state(run.id) == {"iteration": 3, "best": float("inf")}
        assert store.find_job(b"job") == run
        [batch] = store.batches(run.id)
        assert batch.batch == samples.batch()
        [evaluation] = store.evaluations(run.id)
        assert store.recorded(evaluation.id) == samples.first_evaluation()
        trace = store.trace(run.id, 1)
        assert trace.calls[0].answer == samples.first_answers(batch.id)[1]
        assert trace.calls[0].expert == samples.EXPERT
        assert trace.answer == "b says 1\0"
        store.add_evaluation(run.id, samples.evaluation("new"))
