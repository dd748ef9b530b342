"""`swarm run`: one question, or a task; and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.graphs import chain
from swarm.store import Store

from .conftest import Cli, Result

POOL = ("--pool", "pool.toml")


def document(result: Result) -> dict[str, object]:
    assert result.code == 0, result.err
    found: dict[str, object] = json.loads(result.out)
    return found


@pytest.mark.parametrize(
    ("graph", "answer"),
    [
        ("single:more", "6"),
        ("chain:more,twice", "12"),
        ("chain:twice,more", "11"),
        ("star:more,same,twice", "10"),
        ("tree:more,twice,same,branching=1", "12"),
        ("complete:more,twice", "12"),
        ("debate:more,twice", "14"),
        ("debate:more,twice,rounds=1", "12"),
    ],
)
def test_answer_of_a_topology(cli: Cli, graph: str, answer: str) -> None:
    assert cli("run", graph, *POOL, "--question", "start 5") == (0, f"{answer}\n", "")


def test_graph_from_a_file_and_each_response_on_request(cli: Cli, world: Path) -> None:
    (world / "graph.json").write_text(chain(["more", "twice"]).to_json())
    code, out, err = cli("run", "graph.json", *POOL, "--question", "start 5", "-v")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "12"
    assert "more solver" in out
    assert "response  6" in out


def test_question_as_json(cli: Cli) -> None:
    found = document(cli("run", "chain:more,twice", *POOL, "--question", "start 5", "--json"))
    assert found["answer"] == "12"
    assert [(c["agent"], c["response"]) for c in found["calls"]] == [("more", "6"), ("twice", "12")]
    assert "start 5" in found["calls"][0]["prompt"][-1]["content"]


def test_failed_question_is_a_failed_run(cli: Cli, world: Path) -> None:
    pool = (world / "pool.toml").read_text().replace("py:twice", "py:broken")
    (world / "pool.toml").write_text(pool)
    code, out, err = cli("run", "chain:more,twice", *POOL, "--question", "start 5")
    assert (code, out) == (1, "")
    assert err == "error: the script of `twice` raised ValueError('no answer today')\n"


def test_task_is_recorded_with_every_setting_and_its_origin(
    cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_POOL", "pool.toml")
    monkeypatch.setenv("SWARM_SPLIT", "test")
    run = ("run", "chain:more,twice", "--task", "task.toml", "--split", "dev", "--limit", "3")
    found = document(cli(*run, "--json"))
    assert found["status"] == "done"
    assert found["summary"]["score"] == 1
    assert found["summary"]["questions"] == 3
    settings = found["settings"]
    assert settings["split"] == "dev"
    assert settings["from"] == {
        "graph": "argument",
        "pool": "env SWARM_POOL",
        "task": "flag",
        "split": "flag",
        "limit": "flag",
        "store": "default",
    }
    assert settings["files"] == {
        "pool": str(world / "pool.toml"),
        "task": str(world / "task.toml"),
    }
    with Store.open("swarm.db", create=False) as store:
        assert store.run(1).settings == settings


def test_second_time_nothing_is_asked(cli: Cli) -> None:
    run = ("run", "chain:more,twice", *POOL, "--task", "task.toml")
    first = cli(*run)
    assert "8 answered, 8 asked of engines" in first.out
    assert "swarm show 1 --trace 0" in first.out
    assert "8 answered, 0 asked of engines" in cli(*run, "--name", "again").out
    assert [run["name"] for run in json.loads(cli("runs", "--json").out)] == ["again", "grow test"]


def test_best_graph_of_a_run_with_its_pool(cli: Cli) -> None:
    assert cli("run", "chain:more,twice", *POOL, "--task", "task.toml").code == 0
    assert cli("run", "1", "--question", "start 5").out == "12\n"
    found = document(cli("run", "1", "--task", "task.toml", "--split", "dev", "--json"))
    assert found["run"] == 2
    assert found["summary"]["score"] == 1
    assert found["settings"]["from"]["pool"] == "run 1"


def test_task_on_which_every_question_fails(cli: Cli, world: Path) -> None:
    pool = (world / "pool.toml").read_text().replace("py:twice", "py:broken")
    (world / "pool.toml").write_text(pool)
    code, out, err = cli("run", "chain:more,twice", *POOL, "--task", "task.toml")
    assert code == 1
    assert "failures" in out
    assert err.startswith("error: every question of run 1 failed; the first: the script of `twice`")


def test_a_flag_counts_more_than_a_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_TASK", "task.toml")
    assert cli("run", "single:more", *POOL, "--question", "start 1").out == "2\n"
    monkeypatch.setenv("SWARM_STORE", "other.db")
    assert cli("run", "single:more", *POOL).code == 0
    assert Path("other.db").exists()
    assert not Path("swarm.db").exists()
