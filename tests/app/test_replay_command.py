"""`swarm replay`: which task it scores with, and how it says what differs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from swarm.runtime import residency

from .conftest import Cli

RUN = ("run", "chain:more,twice", "--pool", "pool.toml", "--task", "task.toml")


@pytest.fixture
def recorded(cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store with run 1, an evaluation; no engine can be made any more."""
    assert cli(*RUN).code == 0

    def refuse(name: str, **options: Any) -> None:
        raise AssertionError(f"the engine `{name}` was made")

    monkeypatch.setattr(residency, "create_engine", refuse)
    return world / "swarm.db"


def change(store: Path, statement: str) -> None:
    database = sqlite3.connect(store)
    with database:
        database.execute(statement)
    database.close()


def test_the_task_is_remembered(cli: Cli, recorded: Path) -> None:
    code, out, err = cli("replay", "1")
    assert code == 0
    assert out.startswith("everything comes out as recorded\n")
    assert "scores        4 the same" in out
    assert "replay of run 1" in err
    runs = json.loads(cli("runs", "--json").out)
    assert [(run["kind"], run["parent"]) for run in runs] == [("replay", 1), ("evaluation", None)]
    assert "replay of run 1" in cli("show", "2").out


def test_report_as_json(cli: Cli, recorded: Path) -> None:
    found = json.loads(cli("replay", "1", "--json", "--quiet").out)
    assert found["same"]
    assert (found["prompts"], found["scores"], found["notes"]) == (8, 4, [])


def test_task_that_is_gone(cli: Cli, recorded: Path, world: Path) -> None:
    (world / "task.toml").rename(world / "elsewhere.toml")
    out = cli("replay", "1").out
    assert "not checked" in out
    assert "note: the task of run 1 can't be read" in out
    assert "4 the same" in cli("replay", "1", "--task", "elsewhere.toml").out


def test_experts_that_are_gone(cli: Cli, recorded: Path, world: Path) -> None:
    (world / "pool.toml").unlink()
    (world / "script.py").unlink()
    assert cli("replay", "1").code == 0


def test_divergence(cli: Cli, recorded: Path) -> None:
    change(recorded, "UPDATE answers SET text = '\x1b[7m99' WHERE text = '13'")
    code, out, err = cli("replay", "1", "--quiet")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: trace 1, agent `twice`: the prompt is not as recorded: expected")
    assert "\\x1b[7m99" in err
    code, out, _ = cli("replay", "1", "--json")
    found = json.loads(out)
    assert code == 1
    assert not found["same"]
    assert (found["trace"], found["agent"]) == (1, "twice")
    assert "Previous response 1: 13\n" in found["expected"]
    assert "Previous response 1: \x1b[7m99\n" in found["got"]
