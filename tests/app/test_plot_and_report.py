"""`swarm plot` and `swarm report`: what a store says of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.store import Store

from .conftest import Cli, records

RUN = ("run", "chain:more,same,twice", "--pool", "pool.toml", "--task", "task.toml", "--quiet")
"""`more` and `twice` make the answer, `same` hands it on; nobody solves anything alone."""


@pytest.fixture
def job(cli: Cli) -> Cli:
    """After a job, run 1, whose best graph was tested, run 2."""
    assert cli("optimize", "job.toml", "--quiet").code == 0
    assert cli("run", "1", "--task", "task.toml", "--quiet").code == 0
    return cli


def test_plot(job: Cli, world: Path) -> None:
    code, out, err = job("plot", "1", "-o", "some/where")
    assert (code, err) == (0, "")
    files = {path.name for path in (world / "some/where").iterdir()}
    drawn = {"convergence", "swarm", "graphs", "places", "calls", "timeline"}
    assert files == {f"{name}.{suffix}" for name in drawn for suffix in ("png", "svg")}
    assert "some/where/convergence.png" in out
    assert "coefficients, coefficients_by_iteration: run 1 has no weight-steps" in out


def test_plot_as_json(job: Cli) -> None:
    document = json.loads(job("plot", "1", "--json").out)
    assert document["run"] == 1
    assert all(Path(file).stat().st_size > 1000 for file in document["files"])
    assert "contribution" in document["left_out"]


def test_plot_of_what_is_no_job(job: Cli, world: Path) -> None:
    code, out, err = job("plot", "2")
    assert (code, err) == (0, "")
    assert {path.name for path in (world / "plots").iterdir()} == {"timeline.png", "timeline.svg"}
    assert "calls, coefficients, coefficients_by_iteration: run 2 is no job" in out


def test_plot_of_what_asked_no_engine(job: Cli) -> None:
    job("run", "1", "--task", "task.toml", "--quiet")
    code, _, err = job("plot", "3")
    assert code == 2
    assert err.startswith("error: there is nothing to draw: run 3 is no job")
    assert "run 3 asked no engine" in err


def test_plot_into_a_file(job: Cli, world: Path) -> None:
    (world / "taken").write_text("")
    code, _, err = job("plot", "1", "-o", "taken")
    assert code == 2
    assert err.startswith("error: `--out taken`: can't be written to")


def test_report_of_a_job(job: Cli) -> None:
    code, out, err = job("report", "1")
    assert (code, err) == (0, "")
    for part in ("best on dev", "on test", "calls", "contribution", "roles on test"):
        assert part in out
    assert "no collaborative gain: never scored alone on `test`: `more`, `twice`, `same`" in out


def test_experts_alone_are_asked_once(job: Cli) -> None:
    first = json.loads(job("report", "1", "--pool", "pool.toml", "--quiet", "--json").out)
    [report] = first["runs"]
    assert report["gain"]["gain"] == pytest.approx(report["system"]["score"])
    [group] = report["gain"]["groups"]
    assert (group["solvers"], group["questions"]) == (0, 4)
    with Store.open("swarm.db") as store:
        assert next(run.name for run in store.runs()) == "grow test: experts alone"
        count = len(store.runs())
    again = json.loads(job("report", "1", "--json").out)
    assert again["runs"] == first["runs"]
    with Store.open("swarm.db") as store:
        assert len(store.runs()) == count


def test_report_of_an_evaluation(cli: Cli) -> None:
    cli(*RUN)
    code, out, err = cli("report", "1", "--pool", "pool.toml", "--quiet")
    assert (code, err) == (0, "")
    assert "collaborative gain on test: +1.000" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if "%" in line}
    assert rows["more"][2:4] == ["100%", "0.000"]  # originates
    [report] = json.loads(cli("report", "1", "--json").out)["runs"]
    acts = {agent["agent"]: agent["acts"] for agent in report["roles"]["agents"]}
    assert acts["same"]["passes on"] == acts["twice"]["corrects"] == 4


def test_several_jobs(job: Cli) -> None:
    assert job("optimize", "job.toml", "--quiet", "--set", "seed=5").code == 0
    out = job("report", "1", "3").out
    assert "score on dev by number of experts" in out, "one of them was not tested"
    document = json.loads(job("report", "1", "3", "--json").out)
    assert [one["run"] for one in document["outcomes"]] == [1, 3]
    [row] = document["by_number_of_experts"]
    assert (row["value"], row["jobs"]) == (3, 2)
    assert document["by_distinct_experts"] == document["by_number_of_experts"]


def test_another_task_or_pool_is_refused(job: Cli, world: Path) -> None:
    records(world / "test.jsonl", range(30, 34))
    code, _, err = job("report", "1", "--task", "task.toml")
    assert code == 2
    assert "`--task task.toml`: is not the task of run 1" in err
    out = job("report", "1").out
    assert "the task of run 1 is not what it was" in out
    assert "responses are not scored" in out
    code, _, err = job("report", "1", "--pool", "pool.toml")
    assert (code, "give `--task`, too" in err) == (2, True)


def test_another_pool_is_refused(job: Cli, world: Path) -> None:
    (world / "other.toml").write_text(
        (world / "pool.toml").read_text().replace("script.py:more", "script.py:same")
    )
    code, _, err = job("report", "1", "--pool", "other.toml")
    assert code == 2
    assert "expert `more` of pool `counters` is not the one of run 1" in err


def test_no_such_run(job: Cli) -> None:
    code, _, err = job("report", "1", "9")
    assert (code, err) == (2, "error: there is no run 9 in this store: the latest is 2\n")
