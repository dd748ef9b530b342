"""`swarm run each` asks experts alone, and `swarm export RUN --pool` makes a recording of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import swarm
from swarm.store import Store

from .conftest import Cli, records

EACH = ("run", "each", "--pool", "pool.toml", "--task", "task.toml", "--split", "dev", "-q")


def asked(cli: Cli, *arguments: str) -> dict[str, Any]:
    """Runs a command that prints a document."""
    code, out, err = cli(*arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def refused(cli: Cli, *arguments: str) -> str:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def mixed(world: Path) -> None:
    """A task that some experts can do alone; two of them have a price."""
    # twice is right at 1, 3, 5, more at 2, 4, 6, and both at 7, which is 1 by mistake.
    lines = [
        {"question": f"start {n}", "answer": str(2 * n if n % 2 else n + 1), "domain": "odd even"}
        for n in range(2, 9)
    ]
    (world / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pool = (world / "pool.toml").read_text()
    pool = pool.replace('py:more"', 'py:more"\nprice = { input = 1.0, output = 2.0 }')
    (world / "pool.toml").write_text(pool)


def test_each_expert_is_scored_alone(cli: Cli, world: Path, mixed: None) -> None:
    found = asked(cli, *EACH)
    scores = {name: one["score"] for name, one in found["experts"].items()}
    assert scores == {"more": pytest.approx(4 / 7), "twice": pytest.approx(3 / 7), "same": 0}
    code, out, err = cli(*EACH)
    assert (code, err) == (0, "")
    assert "more     0.571" in out
    assert "swarm export 2 --pool" in out
    some = asked(cli, *EACH[:1], "each:same,twice", *EACH[2:])
    assert list(some["experts"]) == ["same", "twice"]


def test_exported_and_loaded_it_has_the_same_figures(cli: Cli, world: Path, mixed: None) -> None:
    run = asked(cli, *EACH)
    code, out, err = cli("export", "1", "--pool", "-o", "mine.jsonl.gz")
    assert (code, err) == (0, "")
    assert "7 questions × 3 experts written to mine.jsonl.gz" in out
    recording = swarm.Recording.load("mine.jsonl.gz")
    assert recording.models == ("more", "twice", "same")
    means = {name: one["score"] for name, one in run["experts"].items()}
    assert recording.means() == means
    assert recording.oracle() == 1
    assert recording.benchmarks == ("grow",)
    row = recording.rows[0]
    assert (row.question, row.gold, row.split, row.domain) == ("start 2", "3", "dev", "odd even")
    assert row.responses == row.answers == {"more": "3", "twice": "4", "same": "2"}
    # Costs are tokens × price; who has no price costs nothing beside one who has.
    assert not recording.estimated.any()
    totals = recording.costs.sum(axis=0)
    expected = [one["cost"] for one in run["experts"].values()]
    np.testing.assert_allclose(totals, expected)
    assert totals[0] > 0
    assert totals[1] == 0
    tokens = [one["tokens"] for one in run["experts"].values()]
    assert recording.tokens.sum(axis=(0, 2)).tolist() == tokens


def test_an_exported_pool_answers_as_the_experts_did(cli: Cli, world: Path, mixed: None) -> None:
    before = asked(cli, *EACH)
    assert cli("export", "1", "--pool", "-o", "mine.jsonl.gz").code == 0
    (world / "again.toml").write_text(
        '[defaults]\nengine = "recorded"\n'
        + "".join(
            f'[[experts]]\nname = "{name}"\nmodel = "mine.jsonl.gz:{name}"\n'
            for name in ("more", "twice", "same")
        )
    )
    after = asked(cli, "run", "each", "--pool", "again.toml", *EACH[4:])
    for name, one in before["experts"].items():
        for key in ("score", "tokens"):
            assert after["experts"][name][key] == one[key]
        assert after["experts"][name]["cost"] == pytest.approx(one["cost"], rel=1e-9)


def test_without_a_name_it_is_called_after_the_run(cli: Cli, world: Path) -> None:
    asked(cli, *EACH)
    found = asked(cli, "export", "1", "--pool")
    assert found["file"] == str(world / "run-1.jsonl.gz")
    assert found["notes"] == ["no costs: no expert of the pool has a `price`; tokens are there"]
    assert np.isnan(swarm.Recording.load("run-1.jsonl.gz").costs).all()
    assert "`run-1.jsonl.gz` is already there" in refused(cli, "export", "1", "--pool")
    assert "must be" not in refused(cli, "export", "1", "--pool", "-o", "x.csv")


def test_what_other_runs_hold_of_its_questions(cli: Cli, world: Path) -> None:
    system = ("run", "chain:more,twice", *EACH[2:])
    asked(cli, *system)
    said = refused(cli, "export", "1", "--pool")
    assert "run 1: no expert was asked its questions alone in run 1" in said
    assert "swarm run each --pool POOL.toml --task TASK.toml --split NAME" in said
    assert "`--all`" in said
    said = refused(cli, "export", "1", "--pool", "--all")
    assert "alone in this store" in said
    asked(cli, *EACH, "--limit", "2")
    asked(cli, "run", "single:same", *EACH[2:])
    asked(cli, "run", "single:same", *EACH[2:6], "--split", "test", "-q")
    found = asked(cli, "export", "1", "--pool", "--all")
    assert found["questions"] == 6
    assert any("8 of 18 scores are missing" in note for note in found["notes"])
    recording = swarm.Recording.load("run-1.jsonl.gz", models="union")
    assert np.isfinite(recording.scores).sum(axis=0).tolist() == [2, 2, 6]
    assert {row.split for row in recording.rows} == {"dev"}


def test_other_weights_and_other_roles_are_other_models(cli: Cli, world: Path) -> None:
    asked(cli, *EACH)
    pool = swarm.Pool.load("pool.toml")
    critic = swarm.single("more", pool=pool, role="critic")
    critic.evaluate(swarm.Task.load("task.toml"), "dev", store="swarm.db")
    old = pool["more"].fingerprint.hex()[:8]
    text = (world / "script.py").read_text()
    (world / "script.py").write_text(text.replace("number(messages) + 1", "number(messages) + 2"))
    asked(cli, *EACH)
    asked(cli, "export", "3", "--pool", "--all", "-o", "all.jsonl")
    recording = swarm.Recording.load("all.jsonl")
    assert set(recording.models) == {"more", "twice", "same", "more (critic)", f"more@{old}"}
    assert recording.rows[0].responses["more"] == "3"
    assert recording.rows[0].responses[f"more@{old}"] == "2"


def test_a_question_that_failed_scores_0_and_says_nothing(cli: Cli, world: Path) -> None:
    pool = (world / "pool.toml").read_text().replace("py:twice", "py:broken")
    (world / "pool.toml").write_text(pool)
    asked(cli, *EACH)
    asked(cli, "export", "1", "--pool")
    recording = swarm.Recording.load("run-1.jsonl.gz")
    assert recording.means()["twice"] == 0
    assert "twice" not in recording.rows[0].responses
    assert np.isfinite(recording.scores).all()


def test_a_task_that_is_not_what_it_was(cli: Cli, world: Path) -> None:
    asked(cli, *EACH)
    records(world / "dev.jsonl", range(3, 9))
    found = asked(cli, "export", "1", "--pool")
    assert found["notes"][0] == "the task of run 1 is not what it was"
    assert "no answers are read from the texts" in found["notes"][1]
    recording = swarm.Recording.load("run-1.jsonl.gz")
    assert recording.rows[0].responses["more"] == "2"
    assert recording.rows[0].answers == {}
    said = refused(cli, "export", "1", "--pool", "-o", "x.jsonl", "--task", "task.toml")
    assert "is not the task of run 1" in said


def test_choices_are_told_apart_from_the_question(cli: Cli, world: Path) -> None:
    lines = [
        {"question": f"start {n}", "answer": "A", "choices": [str(n + 1), str(2 * n)]}
        for n in (3, 4)
    ]
    (world / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = (world / "task.toml").read_text()
    (world / "task.toml").write_text(
        text.replace('"number"', '"choice"').replace('test = "test.jsonl"\n', "")
    )
    asked(cli, *EACH)
    asked(cli, "export", "1", "--pool")
    row = swarm.Recording.load("run-1.jsonl.gz").rows[0]
    assert (row.question, row.choices) == ("start 3", {"A": "4", "B": "6"})
    assert row.answers == {"more": "A", "twice": "B", "same": None}


def test_a_job_that_asked_experts_alone(cli: Cli, world: Path) -> None:
    job = (world / "job.toml").read_text().replace("role_step", "best_single")
    (world / "job.toml").write_text(job.partition("[settings]")[0])
    asked(cli, "optimize", "job.toml", "-q")
    found = asked(cli, "export", "1", "--pool")
    assert set(found["means"]) == {"more", "twice", "same"}


def test_a_system_is_exported_as_before(cli: Cli, world: Path, monkeypatch: Any) -> None:
    asked(cli, *EACH)
    assert "`--out` is missing" in refused(cli, "export", "1")
    assert "add a bare `--pool`" in refused(cli, "export", "1", "-o", "found", "--all")
    assert "is no run" in refused(cli, "export", "single:more", "--pool")
    assert "Python function" in refused(cli, "export", "1", "-o", "found", "--pool", "pool.toml")
    # A variable that is set to nothing is not set.
    monkeypatch.setenv("SWARM_POOL", "")
    assert "Python function" in refused(cli, "export", "1", "-o", "found")


def test_each_says_what_it_needs(cli: Cli, world: Path) -> None:
    assert "`--pool` is missing" in refused(cli, "run", "each", "--task", "task.toml")
    said = refused(cli, "run", "each", "--pool", "pool.toml", "--question", "start 1")
    assert "`each` scores experts: give `--task`, not `--question`" in said
    said = refused(cli, "run", "each:moar", *EACH[2:])
    assert "expert `moar` is not in pool `counters` (did you mean `more`?)" in said
    assert "no experts" in refused(cli, "run", "each:", *EACH[2:])
    assert not (world / "swarm.db").exists()


def test_all_of_an_expert_failing_is_seen(cli: Cli, world: Path) -> None:
    pool = (world / "pool.toml").read_text().replace("py:twice", "py:broken")
    (world / "pool.toml").write_text(pool)
    assert cli(*EACH).code == 0
    code, _, err = cli("run", "each:twice", *EACH[2:])
    assert code == 1
    assert "every question of run 2 failed" in err


def test_a_run_made_by_each_can_be_looked_at_and_replayed(cli: Cli, world: Path) -> None:
    asked(cli, *EACH)
    assert cli("replay", "1").code == 0
    assert cli("show", "1").code == 0
    with Store.open("swarm.db") as store:
        assert len(store.evaluations(1)) == 3
