"""`swarm optimize` within limits, before anything is run, many times over, and twice at once."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

import swarm

from .conftest import POOL, Cli

SEARCH = ("optimize", "job.toml", "--set", "iterations=6", "--set", "patience=6")


DEFAULTS = """engine = "scripted"
[defaults.price]
input = 10
output = 20
[defaults.sampling]
max_tokens = 2
"""
OTHERS = """
def less(messages):
    return str(number(messages) - 1)

def thrice(messages):
    return str(number(messages) * 3)

def ten(messages):
    return str(number(messages) + 10)
"""


@pytest.fixture(autouse=True)
def _larger(world: Path) -> None:
    """More experts, with prices."""
    text = POOL.replace('engine = "scripted"\n', DEFAULTS)
    for name in ("less", "thrice", "ten"):
        text += f'\n[[experts]]\nname = "{name}"\nmodel = "script.py:{name}"\n'
    (world / "pool.toml").write_text(text)
    with (world / "script.py").open("a") as file:
        file.write(OTHERS)


def total(cli: Cli, figure: str = "asked") -> float:
    """What the search takes without limits."""
    whole = json.loads(cli(*SEARCH, "--store", "total.db", "--json", "-q").out)
    return float(whole["summary"][figure])


def test_the_command_that_goes_on_says_no_more_than_was_said(cli: Cli) -> None:
    job = ("optimize", "job.toml", "--json", "-q")
    limit = json.loads(cli(*job, "--store", "whole.db").out)["summary"]["asked"] - 1
    stopped = json.loads(cli(*job, "--max-calls", str(limit)).out)
    assert stopped["go_on"] == f"swarm optimize job.toml --max-calls {2 * limit}"


def test_a_limit_stops_and_the_command_it_shows_goes_on(cli: Cli) -> None:
    whole = json.loads(cli(*SEARCH, "--store", "whole.db", "--json", "-q").out)
    limit = int(0.7 * total(cli))
    code, out, err = cli(*SEARCH, "--max-calls", str(limit), "-q")
    assert (code, err) == (0, "")
    assert "stopped by --max-calls: the best so far is kept; to go on, raise it:" in out
    [command] = [line.strip() for line in out.splitlines() if "--max-calls" in line][-1:]
    assert command.endswith(f"--max-calls {2 * limit}")
    assert "swarm show 1" in out

    [left] = json.loads(cli("runs", "--json").out)
    assert left["status"] == "stopped"
    assert left["summary"]["stopped"] == "max_calls"
    assert 0 < left["summary"]["asked"] <= limit
    shown = cli("show", "1").out
    assert "stopped by" in shown
    assert "--max-calls" in shown
    assert cli("run", "1", "--question", "start 1").code == 0, "the best is there"

    while "stopped by" in out:
        command = next(line for line in reversed(out.splitlines()) if "swarm optimize" in line)
        code, out, err = cli(*shlex.split(command)[1:], "-q")
        assert (code, err) == (0, "")
    ended = json.loads(cli(*SEARCH, "--json").out)
    assert (ended["run"], ended["status"]) == (1, "done")
    assert ended["graph"] == whole["graph"]
    for figure in ("score", "asked", "tokens", "cost"):
        assert ended["summary"][figure] == whole["summary"][figure]


@pytest.mark.parametrize(
    ("limit", "used"), [("calls", "asked"), ("tokens", "tokens"), ("cost", "cost")]
)
def test_limits_by_flag_variable_and_file(
    cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str
) -> None:
    value = total(cli, used) * 0.7
    value = value if limit == "cost" else int(value)
    job = (world / "job.toml").read_text()

    def stopped(store: str, *flags: str) -> dict[str, object]:
        found = json.loads(cli(*SEARCH, *flags, "--store", store, "--json").out)
        assert found["status"] == "stopped"
        assert found["summary"]["stopped"] == f"max_{limit}"
        assert found["summary"][used] <= value
        return found

    flag = stopped("flag.db", f"--max-{limit}", str(value))
    monkeypatch.setenv(f"SWARM_MAX_{limit.upper()}", str(value))
    variable = stopped("variable.db")
    monkeypatch.delenv(f"SWARM_MAX_{limit.upper()}")
    (world / "job.toml").write_text(f"max_{limit} = {value}\n{job}")
    file = stopped("file.db")
    assert flag["graph"] == variable["graph"] == file["graph"]
    assert shlex.split(str(file["go_on"]))[-2:] == [f"--max-{limit}", str(2 * value)]


def test_limits_in_a_python_job(cli: Cli, world: Path) -> None:
    (world / "job.py").write_text(
        "import swarm\n"
        "job = swarm.RoleStep(particles=3, iterations=6, patience=6)\n"
        "pool = swarm.Pool.load('pool.toml')\n"
        "task = swarm.Task.load('task.toml')\n"
        f"max_calls = {int(total(cli) * 0.7)}\nmax_cost = 5\n"
    )
    found = json.loads(cli("optimize", "job.py", "--json").out)
    assert found["status"] == "stopped"
    assert found["summary"]["stopped"] == "max_calls"


def test_a_limit_before_anything_is_scored(cli: Cli) -> None:
    code, out, err = cli(*SEARCH, "--max-calls", "2", "-q")
    assert (code, out) == (1, "")
    assert err == (
        "error: `max_calls` is 2: after 2 there is no room for another request, and nothing is "
        "scored yet: raise it and run the same again; all answers so far are kept\n"
    )
    assert json.loads(cli("runs", "--json").out)[0]["status"] == "stopped"
    assert cli(*SEARCH).code == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--max-calls", "0"), "`--max-calls`: `max_calls` is 0: a limit must be above 0"),
        (("--max-cost", "-1"), "`--max-cost`: `max_cost` is -1.0: a limit must be above 0"),
        (("--max-cost", "free"), "--max-cost"),
        (("--sample", "5"), "`--sample` is for `--dry-run`"),
        (("--sweep", "2000"), "a sweep of 2000 jobs: there can be 1 to 1350"),
        (("--sweep", "20", "--set", "step=0.5", "--set", "social=0.2", "--set", "repel=0.1",
          "--set", "inertia=0.1"), "there can be 1 to 5"),
    ],
)  # fmt: skip
def test_bad_limits(cli: Cli, world: Path, flags: tuple[str, ...], said: str) -> None:
    code, out, err = cli("optimize", "job.toml", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (world / "swarm.db").exists()


def test_a_limit_of_cost_without_prices(cli: Cli, world: Path) -> None:
    (world / "pool.toml").write_text(POOL)
    code, _, err = cli("optimize", "job.toml", "--max-cost", "1")
    assert code == 2
    assert "`--max-cost`: `max_cost` is 1, but no expert of pool `counters` has a price" in err


def test_dry_run(cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    whole = json.loads(cli(*SEARCH, "--store", "whole.db", "--json").out)["summary"]
    code, out, err = cli(*SEARCH, "--dry-run", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["estimate"] is None
    most = said["at_most"]
    assert most["calls"] == 6 * 3 * 6 * 6
    assert whole["asked"] <= most["calls"]
    assert whole["tokens"] <= most["prompt_tokens"] + most["completion_tokens"]
    assert whole["cost"] <= most["cost"]
    out = cli(*SEARCH, "--dry-run").out
    assert "6 iterations × 3 graphs × 6 agents × 6 questions" in out
    assert f"${most['cost']:.4f}" in out
    assert "estimated" not in out
    swept = json.loads(cli(*SEARCH, "--dry-run", "--sweep", "4", "--json").out)["at_most"]
    assert (swept["jobs"], swept["calls"]) == (4, 4 * most["calls"])
    assert not (world / "swarm.db").exists()
    assert "torch" not in sys.modules


def test_dry_run_with_a_sample(cli: Cli, world: Path) -> None:
    said = json.loads(cli(*SEARCH, "--dry-run", "--sample", "4", "--json").out)
    estimate, most = said["estimate"], said["at_most"]
    assert (estimate["sampled_questions"], estimate["sampled_graphs"]) == (4, 3)
    assert 0 < estimate["sampled_calls"] < estimate["calls"] <= most["calls"]
    assert 0 < estimate["cost"] <= most["cost"]
    out = cli(*SEARCH, "--dry-run", "--sample", "4").out
    assert "estimated" in out
    assert "from 4 questions through 3 random graphs" in out
    assert not (world / "swarm.db").exists()


def test_dry_run_without_prices(cli: Cli, world: Path) -> None:
    (world / "pool.toml").write_text(POOL)
    assert "none: no expert has a price" in cli(*SEARCH, "--dry-run").out


def test_sweep(cli: Cli, world: Path) -> None:
    command = (*SEARCH, "--set", "social=0.5", "--sweep", "3")
    code, out, err = cli(*command, "-q")
    assert (code, err) == (0, "")
    header, _, *rows = out.splitlines()[:5]
    assert header.split() == [
        "run", "score", "inertia", "cognitive", "repel", "step", "calls", "status"
    ]  # fmt: skip
    scores = [float(row.split()[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)

    jobs = json.loads(cli(*command, "--json").out)["jobs"]
    assert [(str(job["run"]), f"{job['score']:.3f}") for job in jobs] == [
        tuple(row.split()[:2]) for row in rows
    ]
    assert len({tuple(job["settings"].values()) for job in jobs}) == 3
    recorded = json.loads(cli("runs", "--json").out)
    assert {run["name"] for run in recorded} == {f"sweep {k} on grow" for k in (1, 2, 3)}
    for run in recorded:
        [job] = [job for job in jobs if job["run"] == run["run"]]
        drawn = {key: run["settings"][key] for key in job["settings"]}
        assert drawn == job["settings"]
        assert run["settings"]["social"] == 0.5
        assert run["summary"]["asked"] == job["calls"]

    longer = json.loads(cli(*command[:-1], "4", "--json").out)["jobs"]
    assert {job["run"] for job in jobs} < {job["run"] for job in longer}


def test_sweep_within_limits_goes_on(cli: Cli) -> None:
    command = (*SEARCH, "--sweep", "3")
    whole = json.loads(cli(*command, "--store", "whole.db", "--json").out)["jobs"]
    assert {job["status"] for job in whole} == {"done"}
    # In one store the jobs share answers, so that the first takes the most.
    limit = int(max(job["calls"] for job in whole) * 0.7)
    stopped = json.loads(cli(*command, "--max-calls", str(limit), "--json").out)
    assert "stopped" in {job["status"] for job in stopped["jobs"]}
    assert all(job["calls"] <= limit for job in stopped["jobs"])
    go_on = shlex.split(stopped["go_on"])
    assert go_on[1:] == ["optimize", "job.toml", "--sweep", "3", *SEARCH[2:],
                         "--max-calls", str(2 * limit)]  # fmt: skip
    assert "stopped by --max-calls" in cli(*command, "--max-calls", str(limit)).out
    shared = json.loads(cli(*go_on[1:], "--max-calls", "100000", "--json").out)["jobs"]
    assert [(j["settings"], j["score"], j["graph"]) for j in shared] == [
        (j["settings"], j["score"], j["graph"]) for j in whole
    ]


def test_who_comes_second_is_told_in_one_line(cli: Cli) -> None:
    assert cli(*SEARCH, "--max-calls", str(int(0.7 * total(cli)))).code == 0
    with swarm.Store.open("swarm.db") as store, store.lock_run(1):
        for command in (SEARCH, (*SEARCH, "--json")):
            code, out, err = cli(*command)
            assert (code, out, err.count("\n")) == (1, "", 1)
            assert "error: run 1 is being worked on by process" in err
            assert "wait for it, or stop it and try again" in err
    assert cli(*SEARCH).code == 0
