"""`swarm runs`, `swarm show`, `swarm doctor`: what was recorded, safe to look at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.app.terminal import one_line, plain
from swarm.store import BatchRecord, Store

from .conftest import Cli, records

RUN = ("run", "chain:more,twice", "--pool", "pool.toml", "--task", "task.toml")

EVIL = "[red]\x1b[2J\x1b]0;title\x07[/red]\x9b31m[link=http://x]\u202e\r gone"


@given(st.text())
def test_plain_text_steers_no_terminal(text: str) -> None:
    shown = plain(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)
    shown.encode()
    assert "\n" not in one_line(text)
    assert len(one_line(text, 20)) <= 20


def test_empty_store(cli: Cli) -> None:
    Store.open("swarm.db").close()
    assert cli("runs").out.startswith("no runs yet")
    assert json.loads(cli("runs", "--json").out) == []


def test_table_of_runs(cli: Cli) -> None:
    cli(*RUN)
    cli("optimize", "job.toml")
    code, out, err = cli("runs")
    assert (code, err) == (0, "")
    job, evaluation = out.splitlines()[2:4]
    assert job.split()[:2] == ["2", "job"]
    assert evaluation.split()[:7] == ["1", "evaluation", "grow", "test", "done", "1.000", "4"]
    assert [run["run"] for run in json.loads(cli("runs", "--json", "--last", "1").out)] == [2]


def test_run_whose_process_was_killed(cli: Cli) -> None:
    with Store.open("swarm.db") as store:
        run = store.start_run("job", "a job", {})
        assert json.loads(cli("runs", "--json").out)[0]["status"] == "killed"
        with store.lock_run(run):
            assert json.loads(cli("runs", "--json").out)[0]["status"] == "running"


def test_page_of_an_evaluation(cli: Cli, world: Path) -> None:
    records(world / "test.jsonl", range(11, 13))
    text = (world / "test.jsonl").read_text().replace('"24"', '"25"')
    (world / "test.jsonl").write_text(text)
    cli(*RUN)
    page = cli("show", "1").out
    assert "twice\n  └── more" in page
    assert "0.500" in page
    assert re.search(r"first of 1 questions.*\n.*\n.*\n +0 +start 11 +25 +24", page)
    assert re.search(r"split +test +default", page)
    found = json.loads(cli("show", "1", "--json").out)
    assert found["failed"] == 1
    assert found["failures"][0]["gold"] == ["25"]
    assert found["graph"]["edges"] == [["more", "twice"]]
    assert found["evaluations"][0]["score"] == 0.5


def test_page_of_a_job(cli: Cli) -> None:
    cli("optimize", "job.toml")
    page = cli("show", "1").out
    for part in ("best graph", "iterations", "best so far", "evaluations", "settings", "particles"):
        assert part in page
    found = json.loads(cli("show", "1", "--json").out)
    assert [iteration["number"] for iteration in found["iterations"]] == [1, 2]
    best = max(evaluation["score"] for evaluation in found["evaluations"])
    assert found["iterations"][-1]["best_so_far"] == best == found["summary"]["score"]


def test_trace(cli: Cli) -> None:
    cli(*RUN)
    cli("run", "chain:more,same", *RUN[2:])
    text = cli("show", "2", "--trace", "1").out
    assert "same\n  └── more" in text
    assert re.search(r"1 more solver · \d+ tokens in, 1 out · [\d.]+ ms · known before", text)
    assert re.search(r"2 same solver · .* · asked in batch \d+", text)
    assert "Question: start 12" in text
    assert "response  13" in text
    found = json.loads(cli("show", "2", "--trace", "1", "--json").out)
    assert [call["cached"] for call in found["calls"]] == [True, False]
    assert found["calls"][1]["prompt"][-1]["content"].endswith("Question: start 12")
    assert found["calls"][1]["completion_tokens"] == 1


SHORT = """
name = "short"
[defaults]
engine = "scripted"
[[experts]]
name = "talks"
model = "talk.py:talks"
[[experts]]
name = "reads"
model = "talk.py:reads"
sampling = { max_tokens = 5 }
context = 70
overflow = "shorten"
"""


def test_prompt_that_was_shortened(cli: Cli, world: Path) -> None:
    (world / "talk.py").write_text(
        "def talks(messages):\n    return ' '.join(f'w{k}' for k in range(30))\n"
        "def reads(messages):\n    return messages[-1].content.split()[-1]\n"
    )
    (world / "pool.toml").write_text(SHORT)
    run = ("run", "chain:talks,reads", *RUN[2:])
    assert "shortened     4 prompts" in cli(*run).out
    assert re.search("shortened +4 prompts", cli("show", "1").out)
    text = cli("show", "1", "--trace", "0").out
    assert re.search(r"Previous response 1: \[…\] w\d+ (w\d+ )*w29\n", text)
    [kept] = re.findall(r"to fit: of talks's response the last (\d+) of 109 characters", text)
    found = json.loads(cli("show", "1", "--trace", "0", "--json").out)
    assert [call["shortened"] for call in found["calls"]] == [
        [],
        [{"agent": "talks", "kept": int(kept), "of": 109}],
    ]
    assert json.loads(cli("show", "1", "--json").out)["summary"]["shortened"] == 4
    assert "4 of them shortened" in cli("replay", "1").out
    assert json.loads(cli("replay", "1", "--json").out)["shortened"] == 4
    ask = (*run[:4], "--question", "start 11")
    assert f"to fit: of response 1 the last {kept} of 109 characters" in cli(*ask, "-v").out
    asked = json.loads(cli(*ask, "--json").out)["calls"][1]
    assert asked["shortened"] == [{"response": 1, "kept": int(kept), "of": 109}]


def test_what_a_run_promises(cli: Cli) -> None:
    cli(*RUN)
    assert re.search("determinism +bitwise", cli("show", "1").out)
    assert json.loads(cli("show", "1", "--json").out)["summary"]["determinism"] == "bitwise"
    assert json.loads(cli("replay", "1", "--json").out)["determinism"] == "bitwise"


def test_batches(cli: Cli) -> None:
    cli(*RUN)
    document = json.loads(cli("show", "1", "--batches", "--json").out)
    found = document["batches"]
    assert (document["totals"]["batches"], document["totals"]["loads"]) == (2, 0)
    assert [(b["experts"], b["requests"]) for b in found] == [(["more"], 4), (["twice"], 4)]
    assert "twice" in cli("show", "1", "--batches").out
    cli(*RUN)
    assert "every answer was known before" in cli("show", "2", "--batches").out


def test_untrusted_text_is_escaped_wherever_it_is_shown(cli: Cli, world: Path) -> None:
    script = (world / "script.py").read_text() + f"\ndef evil(messages):\n    return {EVIL!r}\n"
    script += f"\ndef fail(messages):\n    raise ValueError({EVIL!r})\n"
    (world / "script.py").write_text(script)
    pool = (world / "pool.toml").read_text().replace("py:twice", "py:evil")
    (world / "pool.toml").write_text(pool.replace("py:same", "py:fail"))
    question = {"question": f"start 1 {EVIL}", "answer": "4", "id": EVIL}
    (world / "test.jsonl").write_text(json.dumps(question) + "\n")
    task = (world / "task.toml").read_text().replace('"grow"', json.dumps(EVIL))
    (world / "task.toml").write_text(task)
    run = (*RUN, "--name", EVIL)
    shown = [
        cli("run", "single:twice", *RUN[2:4], "--question", EVIL, "-v"),
        cli("run", "single:same", *RUN[2:4], "--question", EVIL),
        cli(*run, "-v"),
        cli("run", "chain:more,same", *RUN[2:]),
        cli("runs"),
        cli("show", "1"),
        cli("show", "2"),
        cli("show", "1", "--trace", "0"),
        cli("show", "2", "--trace", "0"),
        cli("show", "1", "--trace", "0", "--json"),
        cli("show", "1", "--batches"),
        cli("replay", "1"),
        cli("optimize", "job.toml"),
        cli("show", "4"),
        cli("run", f"single:{EVIL}", *RUN[2:]),
    ]
    for result in shown:
        text = result.out + result.err
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), text
    assert "[red]\\x1b[2J" in shown[0].out, "shown as it is, not as markup"
    assert "[red]\\x1b[2J" in shown[7].out
    assert all(result.err.count("\n") == 1 for result in (shown[1], shown[3], shown[-1]))


def test_terminal_that_knows_only_ascii(
    cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli(*RUN)
    command = [sys.executable, "-c", "from swarm.app.cli import main; main()", "show", "1"]
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = subprocess.run(command, capture_output=True, check=True, cwd=world)
    assert done.stdout.isascii()
    assert b"`-- more" in done.stdout


def test_doctor(cli: Cli, world: Path) -> None:
    code, out, _ = cli("doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["packages"]["langgraph"]
    engines = {engine["name"]: engine for engine in found["engines"]}
    assert engines["scripted"]["works"]
    assert found["store"]["detail"] == "not there yet: the first run makes it"
    assert not (world / "swarm.db").exists()
    cli(*RUN)
    assert "the latest run is 1" in cli("doctor").out
    code, out, err = cli("doctor", "--store", "task.toml")
    assert (code, err) == (1, "")
    assert "another kind of file is there" in out


def test_batches_say_what_loading_took(cli: Cli, world: Path) -> None:
    run = record_loads(world / "loads.db")
    store = ("--store", "loads.db")
    document = json.loads(cli("show", str(run), "--batches", "--json", *store).out)
    assert [batch["evicted"] for batch in document["batches"]] == [[], ["fake:/models/one"], []]
    totals = document["totals"]
    assert (totals["loads"], totals["load_bytes"], totals["evictions"]) == (2, 3 << 30, 1)
    assert totals["load_share"] == pytest.approx(0.25)
    out = cli("show", str(run), "--batches", *store).out
    rows = [line.split() for line in out.splitlines() if "model-" in line]
    assert rows[1][-4:] == ["1.00*", "2", "GiB", "one"]
    assert "2, 3 GiB, 2.00 s (25% of the engines' time)" in out
    assert "1 of 2 loads" in out


def record_loads(path: Path) -> int:
    """A run of three batches: two loads, one of them read ahead and with an eviction."""
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def batch(base: str, at: float, size: int = 0, **loading: Any) -> BatchRecord:
        return BatchRecord(
            1, f"fake:/models/{base}", (f"model-{base}",), 5, 50, 10, 2.0, float(bool(size)),
            bool(size), began + timedelta(seconds=at), load_bytes=size << 30, **loading,
        )  # fmt: skip

    with Store.open(str(path)) as store:
        run = store.start_run("evaluation", "loads", {"task": "grow"})
        evicted = {"prefetched": True, "evicted": ("fake:/models/one",), "evict_seconds": 0.1}
        store.add_batches(
            run, [batch("one", 1, 1), batch("two", 4, 2, **evicted), batch("two", 90_000)]
        )
        store.finish_run(run, "done", {})
    return run


def test_a_models_memory_is_refused_in_one_line(cli: Cli) -> None:
    code, _, err = cli(*RUN, "--memory", "much")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: `--memory`: `memory` is `much`: give a number of models")
    assert cli(*RUN, "--memory", "2").code == 0
    assert cli("optimize", "job.toml", "--memory", "1GiB", "--quiet").code == 0
