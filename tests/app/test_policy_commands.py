"""Policies on the command line: fitted, run, shown, replayed, exported, reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from swarm.optimizers.policy import fitted_policy
from swarm.runtime import policy
from swarm.runtime.policy import load_policy
from swarm.store import Store

from .conftest import Cli, Result

sys.path.append(str(Path(__file__).parents[1] / "runtime"))  # for `policies`

EXPERTS = """
def red(messages):
    return "yes" if "red" in messages[-1].content else "no"

def green(messages):
    return "yes" if "green" in messages[-1].content else "no"

def router(messages):
    return "go to 0" if "red" in messages[-1].content else "go to 1"
"""
POOL = """
name = "colours"
[defaults]
engine = "scripted"
[[experts]]
name = "red"
model = "colours.py:red"
[[experts]]
name = "green"
model = "colours.py:green"
price = {output = 1000}
"""
ROUTER = '[[experts]]\nname = "router"\nmodel = "colours.py:router"\nprice = {output = 1000}\n'
TASK = """
name = "colours"
scorer = "exact"
[splits]
dev = "cdev.jsonl"
test = "ctest.jsonl"
"""
JOB = 'optimizer = "wording"\npool = "colours.toml"\ntask = "ctask.toml"\n'


@pytest.fixture
def colours(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of two experts that each know one colour, and a task about both."""
    import policies

    policies.register(monkeypatch)
    (world / "colours.py").write_text(EXPERTS)
    (world / "colours.toml").write_text(POOL)
    (world / "router.toml").write_text(POOL + ROUTER)
    (world / "ctask.toml").write_text(TASK)
    (world / "cjob.toml").write_text(JOB)
    for name, numbers in (("cdev", range(8)), ("ctest", range(10, 16))):
        lines = [
            {"question": f"is {('red', 'green')[n % 2]} {n}?", "answer": "yes"} for n in numbers
        ]
        (world / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return world


def document(result: Result) -> Any:
    assert result.code == 0, result.err
    return json.loads(result.out)


def asking(folder: Path) -> None:
    """A policy that asks `router` which of two experts answers."""
    import policies

    from swarm.graphs import single

    policies.Asking([single("red"), single("green")], ["router"]).save(folder)


def test_a_job_is_fitted_and_its_policy_used(cli: Cli, colours: Path) -> None:
    result = cli("optimize", "cjob.toml")
    assert result.code == 0, result.err
    assert "wording" in result.out
    assert "best single" in result.out
    assert cli("run", "1", "--question", "is green 99?") == (0, "yes\n", "")
    found = document(cli("run", "1", "--question", "is red 99?", "--json"))
    assert found["graph"]["agents"][0]["expert"] == "red"
    scored = document(cli("run", "1", "--task", "ctask.toml", "--json"))
    assert scored["summary"]["score"] == 1
    assert scored["summary"]["graphs"] == 2
    assert scored["settings"]["policy"]["name"] == "wording"
    again = document(cli("run", str(scored["run"]), "--task", "ctask.toml", "--json"))
    assert again["summary"]["score"] == 1
    assert again["summary"]["asked"] == 0


def test_a_job_again_is_known_and_foreseen(cli: Cli, colours: Path) -> None:
    foreseen = document(cli("optimize", "cjob.toml", "--dry-run", "--json"))
    assert foreseen["at_most"]["calls"] == 16
    first = document(cli("optimize", "cjob.toml", "--json"))
    assert "graph" not in first
    assert first["summary"]["policy"]["name"] == "wording"
    assert "was done before" in cli("optimize", "cjob.toml").out
    refused = cli("optimize", "cjob.toml", "--sweep", "2")
    assert (refused.code, "can't be swept" in refused.err) == (2, True)


def test_the_page_of_a_policys_run(cli: Cli, colours: Path) -> None:
    cli("optimize", "cjob.toml")
    cli("run", "1", "--task", "ctask.toml")
    page = cli("show", "1")
    assert page.code == 0, page.err
    assert "wording" in page.out
    assert "best of 4 evaluations" in page.out
    page = cli("show", "2")
    assert page.code == 0, page.err
    assert "first of 2 graphs chosen" in page.out
    found = document(cli("show", "2", "--json"))
    assert found["policy"]["name"] == "wording"
    assert found["graph"] is None
    assert [each["questions"] for each in found["evaluations"]] == [3, 3]
    trace = document(cli("show", "2", "--trace", "4", "--json"))
    assert trace["graph"]["agents"][0]["expert"] == trace["calls"][0]["expert"] == "green"
    assert len(document(cli("show", "2", "--batches", "--json"))) == 2


def test_the_page_of_a_job_says_how_its_policy_learned(cli: Cli, colours: Path) -> None:
    settings = "[settings]\nepochs = 2\nsamples = 2\nwarm = 1\nmax_agents = 2\n"
    (colours / "cjob.toml").write_text(JOB.replace("wording", "masrouter") + settings)
    fitted = cli("optimize", "cjob.toml")
    assert fitted.code == 0, fitted.err
    page = cli("show", "1")
    assert page.code == 0, page.err
    [names, _, first, second] = page.out.partition("\nlearning\n")[2].splitlines()[:4]
    assert names.split() == ["epoch", "score", "cost", "utility", "of", "the", "likeliest", "kept"]
    assert [first.split()[0], second.split()[0]] == ["1", "2"]
    assert "yes" in first + second
    told = document(cli("show", "1", "--json"))["summary"]["learning"]
    assert [row["epoch"] for row in told] == [1, 2]
    drawn = document(cli("plot", "1", "-o", "plots", "--json"))
    assert "plots/learning.png" in drawn["files"]
    assert (colours / "plots" / "learning.svg").read_text().count("utility of the likeliest") == 1


def test_a_job_goes_on_from_what_another_has_learned(cli: Cli, colours: Path) -> None:
    job = JOB.replace("wording", "masrouter")
    small = "[settings]\nepochs = 1\nsamples = 2\n"
    (colours / "cjob.toml").write_text(f"{job}{small}warm = 1\nmax_agents = 2\n")
    assert cli("optimize", "cjob.toml").code == 0
    with Store.open(colours / "swarm.db") as store:
        fitted_policy(store, 1).save(colours / "fitted")
    (colours / "again.toml").write_text(f'{job}{small}start = "fitted"\n')
    went_on = cli("optimize", "again.toml")
    assert went_on.code == 0, went_on.err
    found = document(cli("show", "2", "--json"))
    assert found["settings"]["max_agents"] == 2
    assert [row["epoch"] for row in found["summary"]["learning"]] == [0, 1]
    assert cli("plot", "2", "-o", "plots").code == 0
    refused = cli("optimize", "cjob.toml", "--set", "start=nowhere")
    assert (refused.code, "--set start=nowhere" in refused.err) == (2, True)


def test_what_a_policy_asks_is_seen(cli: Cli, colours: Path) -> None:
    asking(colours / "asks")
    arguments = ("run", "asks", "--pool", "router.toml", "--task", "ctask.toml")
    result = cli(*arguments)
    assert result.code == 0, result.err
    assert "6 of them by the policy, to choose" in " ".join(result.out.split())
    found = document(cli("show", "1", "--json"))
    assert found["summary"]["policy_calls"] == 6
    assert found["summary"]["policy_cost"] == pytest.approx(6 * 3 * 1000 / 1e6)
    assert found["summary"]["cost"] == pytest.approx(6 * 3 * 1000 / 1e6 + 3 * 1000 / 1e6)
    trace = cli("show", "1", "--trace", "5")
    assert "asked by the policy" in trace.out
    assert "route is green 15?" in trace.out
    calls = document(cli("show", "1", "--trace", "0", "--json"))["policy_calls"]
    assert [(c["expert"], c["response"]) for c in calls] == [("router", "go to 0")]
    shown = cli("run", "asks", "--pool", "router.toml", "--question", "is red 1?", "-v")
    assert "router policy" in shown.out
    assert shown.out.splitlines()[-1] == "yes"


def test_replay_and_report(cli: Cli, colours: Path) -> None:
    asking(colours / "asks")
    cli("run", "asks", "--pool", "router.toml", "--task", "ctask.toml", "--json")
    found = document(cli("replay", "1", "--json"))
    assert (found["traces"], found["prompts"], found["scores"]) == (6, 12, 6)
    assert any("how the policy chose" in note for note in found["notes"])
    arguments = ("report", "1", "--pool", "router.toml", "--task", "ctask.toml", "--json")
    [report] = document(cli(*arguments))["runs"]
    assert report["system"] == {"split": "test", "score": 1, "questions": 6}
    assert report["gain"]["gain"] is not None
    assert report["roles"] is None
    assert any("no roles" in note for note in report["notes"])
    cli("optimize", "cjob.toml")
    job = document(cli("show", "3", "--json"))["run"]
    refused = cli("report", str(job + 1))
    assert refused.code == 2
    assert "keeps no history" in refused.err


def test_a_folder_that_was_exported_brings_its_pool(cli: Cli, colours: Path) -> None:
    cli("optimize", "cjob.toml")
    refused = cli("export", "1", "-o", "out")
    assert (refused.code, "is a Python function" in refused.err) == (2, True)
    # A scripted expert can't be written, so the folder is put together by hand.
    stored = document(cli("show", "1", "--json"))["policy"]["fingerprint"]
    with Store.open(colours / "swarm.db") as store:
        fitted_policy(store, 1).save(colours / "out")
    assert load_policy(colours / "out").fingerprint.hex() == stored
    missing = cli("run", "out", "--question", "is red 1?")
    assert (missing.code, "`--pool` is missing" in missing.err) == (2, True)
    (colours / "out" / "pool.toml").write_text(POOL.replace("colours.py", "../colours.py"))
    assert cli("run", "out", "--question", "is red 1?") == (0, "yes\n", "")


def test_a_pool_that_lacks_an_expert(cli: Cli, colours: Path) -> None:
    cli("optimize", "cjob.toml")
    (colours / "less.toml").write_text(POOL.partition('[[experts]]\nname = "green"')[0])
    arguments = ("run", "1", "--pool", "less.toml", "--question", "is green 1?")
    refused = cli(*arguments)
    assert refused.code == 2
    assert "`green`" in refused.err
    assert cli(*arguments, "--drop") == (0, "no\n", "")


def test_a_policy_that_was_fitted_again_is_not_taken_for_the_old_one(
    cli: Cli, colours: Path
) -> None:
    asking(colours / "asks")
    cli("run", "asks", "--pool", "router.toml", "--task", "ctask.toml")
    assert cli("run", "1", "--question", "is red 1?").out == "yes\n"
    import policies

    from swarm.graphs import single

    policies.Listed([single("red")]).save(colours / "asks")
    refused = cli("run", "1", "--question", "is red 1?")
    assert refused.code == 2
    assert "is not the one that run 1 has scored" in refused.err


def test_the_policy_of_an_evaluation_in_python_is_its_jobs(cli: Cli, colours: Path) -> None:
    import swarm
    from swarm.optimizers.wording import WordingOptimizer
    from swarm.runtime.progress import Silent
    from swarm.runtime.system import evaluate_policy

    pool, task = swarm.Pool.load("colours.toml"), swarm.Task.load("ctask.toml")
    system = WordingOptimizer().fit(task, pool, store="swarm.db", progress=Silent())
    system.evaluate(task, store="swarm.db")
    evaluate_policy(system.policy, task, pool, store="swarm.db")
    arguments = ("--pool", "colours.toml", "--question", "is green 1?")
    assert cli("run", "2", *arguments) == (0, "yes\n", "")
    refused = cli("run", "3", *arguments)
    assert refused.code == 2
    assert "is on no record" in refused.err


def test_a_folder_without_a_policy_is_named(cli: Cli, colours: Path) -> None:
    (colours / "empty").mkdir()
    refused = cli("run", "empty", "--pool", "colours.toml", "--question", "x")
    assert refused.code == 2
    assert "no policy is there" in refused.err
    asking(colours / "asks")
    policy.POLICIES.pop("asking")
    refused = cli("run", "asks", "--pool", "router.toml", "--question", "x")
    assert (refused.code, "`asking` is not a policy" in refused.err) == (2, True)
