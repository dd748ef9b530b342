"""`swarm optimize`: settings from everywhere, a graph in the end, and Ctrl-C in between."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from swarm.graphs.topologies import chain

from .conftest import SCRIPT, Cli

PYTHON_JOB = """
import swarm

job = swarm.RoleStep(particles=3, iterations=2, seed=4)
pool = swarm.Pool.load("pool.toml")
task = swarm.Task.load("task.toml")
limit = 5
"""

INTERRUPTING = f"""
{SCRIPT}
import os, signal
from pathlib import Path

def same(messages, asked=[]):
    asked.append(messages)
    if len(asked) == 8 and not Path("interrupted").exists():
        Path("interrupted").touch()
        os.kill(os.getpid(), signal.SIGINT)
    return str(number(messages))
"""


def test_found_graph_score_and_where_to_look(cli: Cli) -> None:
    code, out, err = cli("optimize", "job.toml")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].strip() in {"more", "twice", "same"}
    for command in ("show 1", "show 1 --trace 0", "run 1 --question", "replay 1"):
        assert f"swarm {command}" in out
    score = next(line.split()[2] for line in lines if line.split()[:2] == ["dev", "score"])
    assert f"best {score}" in err.splitlines()[-1]
    assert cli("optimize", "job.toml", "--quiet").err == ""


def test_flag_before_variable_before_file_before_default(
    cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "job.toml").write_text('limit = 5\nstore = "file.db"\n' + Path("job.toml").read_text())
    monkeypatch.setenv("SWARM_LIMIT", "4")
    monkeypatch.setenv("SWARM_STORE", "variable.db")
    sets = ("--set", "iterations=1", "--set", "topology=ring")
    result = cli("optimize", "job.toml", *sets, "--store", "flag.db", "--json")
    assert result.code == 0
    settings = json.loads(result.out)["settings"]
    origins = settings["from"]
    assert Path("flag.db").exists()
    assert settings["store"] == "sqlite:///flag.db"
    assert origins["store"] == "flag"
    assert (settings["limit"], origins["limit"]) == (4, "env SWARM_LIMIT")
    assert (settings["particles"], origins["particles"]) == (3, "job.toml")
    assert (settings["iterations"], origins["iterations"]) == (1, "flag")
    assert (settings["topology"], origins["topology"]) == ("ring", "flag")
    assert (settings["seed"], origins["seed"]) == (0, "default")
    assert (settings["split"], origins["split"]) == ("dev", "default")
    shown = cli("show", "1", "--store", "flag.db").out
    assert "env SWARM_LIMIT" in shown
    monkeypatch.delenv("SWARM_STORE")
    assert cli("optimize", "job.toml", "--quiet").code == 0
    assert Path("file.db").exists()


@pytest.mark.parametrize("job", ["job.toml", "job.py"])
def test_flags_for_how_much_is_evaluated(cli: Cli, world: Path, job: str) -> None:
    (world / "job.py").write_text(PYTHON_JOB)
    found = {}
    for flag in ("--exact", "--racing", "--reference"):
        result = cli("optimize", job, flag, "--json")
        assert result.code == 0, result.err
        found[flag] = json.loads(result.out)["settings"]
        given = {"--exact": "memoise", "--racing": "racing", "--reference": "reference"}[flag]
        assert found[flag]["from"][given] == flag
    assert (found["--exact"]["memoise"], found["--exact"]["bounds"]) == (False, False)
    assert found["--racing"]["racing"] == 0.95
    whole = found["--reference"]
    assert (whole["explore"], whole["memoise"], whole["bounds"]) == (0, False, False)


def test_job_in_python_is_the_job_in_toml(cli: Cli, world: Path) -> None:
    (world / "job.py").write_text(PYTHON_JOB)
    by_python = json.loads(cli("optimize", "job.py", "--json").out)
    sets = ("--set", "seed=4", "--limit", "5")
    by_toml = json.loads(cli("optimize", "job.toml", *sets, "--json").out)
    assert by_toml["run"] == by_python["run"], "the same job, so it is not done again"
    assert by_python["settings"]["from"]["seed"] == "job.py"
    changed = json.loads(cli("optimize", "job.py", "--set", "seed=5", "--json").out)
    assert changed["run"] != by_python["run"]
    assert changed["settings"]["seed"] == 5
    assert cli("replay", "1").out.startswith("everything comes out as recorded")
    assert cli("run", "1", "--question", "start 1").code == 0, "the pool is the job's"


def test_a_file_that_a_setting_names_lies_beside_the_job(cli: Cli, world: Path) -> None:
    jobs = world / "jobs"
    jobs.mkdir()
    (jobs / "graph.json").write_text(chain(["more", "twice"]).to_json())
    job = (
        'optimizer = "masrouter"\npool = "../pool.toml"\ntask = "../task.toml"\n'
        '[settings]\ngraph = "graph.json"\nencoder = "org/name"\n'
    )
    (jobs / "job.toml").write_text(job)
    foreseen = json.loads(cli("optimize", "jobs/job.toml", "--dry-run", "--json").out)
    assert foreseen["at_most"]["agents"] == 2
    (jobs / "job.toml").write_text(job.replace("graph.json", "missing.json"))
    code, _, err = cli("optimize", "jobs/job.toml", "--dry-run")
    assert (code, "key `graph`" in err, "No such file" in err) == (2, True, True)


def test_a_routers_encoder_lies_beside_the_job_and_must_be_there(cli: Cli, world: Path) -> None:
    from swarm.optimizers.embedding import Encoder

    (world / "jobs").mkdir()
    (world / "jobs" / "own").symlink_to(Encoder().folder)
    job = (
        'optimizer = "router"\npool = "../pool.toml"\ntask = "../task.toml"\n'
        '[settings]\nrouter = "knn"\n[settings.options]\nmodel = "./own"\n'
    )
    (world / "jobs" / "job.toml").write_text(job)
    result = cli("optimize", "jobs/job.toml")
    assert result.code == 0, result.err
    (world / "jobs" / "job.toml").write_text(job.replace("./own", "./gone"))
    code, _, err = cli("optimize", "jobs/job.toml", "--store", "other.db")
    assert (code, str(world / "jobs" / "gone") in err) == (2, True)
    assert not (world / "other.db").exists()


def test_job_that_was_done_before_is_shown(cli: Cli) -> None:
    assert "done before" not in cli("optimize", "job.toml").out
    code, out, _ = cli("optimize", "job.toml", "--set", "particles=3")
    assert code == 0
    assert out.startswith("this job was done before")


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_saves_and_says_how_to_go_on(cli: Cli, world: Path, as_json: bool) -> None:
    (world / "interrupting.py").write_text(INTERRUPTING)
    whole = (world / "pool.toml").read_text().replace("script.py:same", "interrupting.py:same")
    (world / "my pool.toml").write_text(whole)
    search = ("optimize", "job.toml", "--pool", "my pool.toml", "--set", "iterations=4")
    code, out, err = cli(*search, "--store", "run.db", *(["--json"] if as_json else []))
    assert code == 130
    command = err.splitlines()[-1].strip()
    assert sorted(shlex.split(command)) == sorted(["swarm", *search, "--store", "run.db"])
    assert "all answers so far are kept in run 1" in err
    if as_json:
        assert json.loads(out) == {"status": "interrupted", "run": 1, "go_on": command}
    else:
        assert out == ""
    [left] = json.loads(cli("runs", "--json", "--store", "run.db").out)
    assert left["status"] == "interrupted"

    resumed = json.loads(cli(*shlex.split(command)[1:], "--json").out)
    assert (resumed["run"], resumed["status"]) == (1, "done")
    other = json.loads(cli(*search, "--store", "other.db", "--json").out)
    assert resumed["graph"] == other["graph"]
    assert resumed["summary"]["score"] == other["summary"]["score"]


def test_ctrl_c_while_a_task_is_scored(cli: Cli, world: Path) -> None:
    (world / "interrupting.py").write_text(INTERRUPTING.replace("== 8", "== 2"))
    whole = (world / "pool.toml").read_text().replace("script.py:same", "interrupting.py:same")
    (world / "pool.toml").write_text(whole)
    run = ("run", "chain:more,same", "--pool", "pool.toml", "--task", "task.toml")
    code, _, err = cli(*run)
    assert code == 130
    assert "all answers so far are kept in run 1" in err
    command = shlex.split(err.splitlines()[-1])
    assert command == ["swarm", *run]
    again = cli(*command[1:])
    assert again.code == 0
    assert "8 answered" in again.out
    assert "8 asked of engines" not in again.out
