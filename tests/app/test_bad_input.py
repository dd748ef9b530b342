"""Whatever is wrong with what was given is said in one line, before torch is even imported."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Cli

RUN = ("run", "graph.json", "--pool", "pool.toml", "--task", "task.toml")
OPTIMIZE = ("optimize", "job.toml")
ASK = ("run", "single:more", "--pool", "pool.toml", "--question", "start 1")


@pytest.fixture
def refused(cli: Cli, world: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that must be refused, and gives what it says."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    def run(*arguments: str) -> str:
        code, out, err = cli(*arguments)
        assert code == 2, err
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "torch" not in sys.modules
        assert not (world / "swarm.db").exists()
        return err

    return run


def graph(world: Path, edges: list[list[str]], expert: str = "more") -> None:
    agents = [{"name": name, "expert": expert} for name in "abc"]
    (world / "graph.json").write_text(json.dumps({"agents": agents, "edges": edges}))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_missing_weights(refused: Callable[..., str], world: Path) -> None:
    gone = 'model = "./gone"\nengine = "transformers"'
    edit(world / "pool.toml", 'model = "script.py:same"', gone)
    said = refused(*ASK)
    assert "`pool.toml`" in said
    assert "expert `same`: key `model`" in said
    assert "gone` is not a folder: give the model's folder" in said


def test_script_that_cannot_be_imported(refused: Callable[..., str], world: Path) -> None:
    (world / "script.py").write_text("import gone_missing")
    said = refused(*ASK)
    assert "pool.toml: expert 1 (`more`): key `model`" in said
    assert "script.py` can't be imported: ModuleNotFoundError" in said


def safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    header = {n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_adapter_for_another_base(refused: Callable[..., str], world: Path) -> None:
    base, adapter = world / "base", world / "adapter"
    for folder, config in ((base, "config.json"), (adapter, "adapter_config.json")):
        folder.mkdir()
        (folder / config).write_text('{"peft_type": "LORA"}')
    safetensors(base / "model.safetensors", {"layer.q.weight": [8, 8]})
    lora = {"base_model.model.layer.q.lora_A.weight": [2, 16]}
    safetensors(adapter / "adapter_model.safetensors", lora)
    new = 'model = "./base"\nadapter = "adapter"\nengine = "transformers"'
    edit(world / "pool.toml", 'model = "script.py:same"', new)
    said = refused(*ASK)
    assert "`pool.toml`" in said
    assert "expert `same`: key `adapter`" in said
    assert "another base" in said
    assert "[2, 16]" in said


def test_unknown_expert_in_a_graph(refused: Callable[..., str], world: Path) -> None:
    graph(world, [["a", "b"], ["b", "c"]], expert="moer")
    said = refused(*RUN)
    assert "`graph.json`: expert `moer` is not in pool `counters` (did you mean `more`?)" in said


def test_cycle(refused: Callable[..., str], world: Path) -> None:
    graph(world, [["a", "b"], ["b", "a"], ["b", "c"]])
    said = refused(*RUN)
    assert "`graph.json`: the edges form a cycle, `a -> b -> a`" in said
    assert "remove one of these edges" in said


def test_two_end_nodes(refused: Callable[..., str], world: Path) -> None:
    graph(world, [["a", "b"], ["a", "c"]])
    said = refused(*RUN)
    assert "`graph.json`: 2 agents have no successors, `b`, `c`" in said


def test_empty_split(refused: Callable[..., str], world: Path) -> None:
    (world / "test.jsonl").write_text("")
    for command in (("run", "single:more", *RUN[2:]), OPTIMIZE):
        said = refused(*command)
        assert "`task.toml`: task `grow`: split `test` is empty" in said


def test_overlapping_splits(refused: Callable[..., str], world: Path) -> None:
    (world / "test.jsonl").write_text((world / "dev.jsonl").read_text())
    said = refused(*OPTIMIZE)
    assert "`task.toml`: task `grow`: splits `dev` and `test` share 6 questions" in said
    assert "`start 1`" in said
    assert "remove them from one" in said


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        ({"question": "start 1"}, "no key `answer`"),
        ({"question": "start 1", "answer": " "}, "gold answer missing"),
        ({"question": "start 1", "answer": "none"}, "`none` is not one number"),
    ],
)
def test_missing_gold_answer(
    refused: Callable[..., str], world: Path, record: dict[str, str], rule: str
) -> None:
    (world / "dev.jsonl").write_text(json.dumps(record) + "\n")
    said = refused(*OPTIMIZE)
    assert "task.toml`" in said
    assert rule in said


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("pool.toml", "model =", "modle =", "key `modle`: unknown (did you mean `model`?)"),
        ("pool.toml", '"scripted"', '"scriptd"', "(did you mean `scripted`?)"),
        ("task.toml", "scorer", "scorrer", "key `scorrer`: unknown (did you mean `scorer`?)"),
        ("task.toml", '"number"', '"numbre"', "(did you mean `number`?)"),
        ("job.toml", "optimizer", "optimiser", "`optimiser`: unknown (did you mean `optimizer`?)"),
        ("job.toml", "role_step", "rolestep", "key `optimizer`: `rolestep` is not an optimizer"),
        ("job.toml", "particles", "particels", "`particels`: unknown (did you mean `particles`?)"),
        ("job.toml", "= 3", "= 1", "key `particles`: `1` must be greater than or equal to 2"),
        ("job.toml", 'pool = "pool.toml"', "", "add `pool = …`, or give `--pool`"),
        ("job.toml", '"pool.toml"', '"pol.toml"', "`pol.toml`: no such file (did you mean"),
        ("job.toml", "[settings]", "split = 'tset'\n[settings]", "no split `tset` (did you mean"),
        ("job.toml", "[settings]", "limit = 0\n[settings]", "key `limit`: `0` must be at least 1"),
        ("job.toml", "[settings]", "[settings", "line 6"),
    ],
)
def test_typo_in_a_file(
    refused: Callable[..., str], world: Path, file: str, old: str, new: str, said: str
) -> None:
    edit(world / file, old, new)
    message = refused(*OPTIMIZE)
    assert said in message
    assert f"{file}" in message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///gone/swarm.db", "gone` for the store: create it"),
        ("sqlight:///swarm.db", "did you mean `sqlite`?"),
        ("task.toml", "another kind of file is there: give another path"),
        (".", "is a directory"),
    ],
)
def test_store_that_cannot_be_opened(refused: Callable[..., str], url: str, said: str) -> None:
    for command in (("run", "single:more", *RUN[2:]), OPTIMIZE, ("runs",), ("replay", "1")):
        assert said in refused(*command, "--store", url)


def test_store_that_would_be_gone_at_once(refused: Callable[..., str]) -> None:
    for command in (("run", "single:more", *RUN[2:]), OPTIMIZE):
        said = refused(*command, "--store", "sqlite://")
        assert "`--store`: `sqlite://` is in memory, and gone when the command ends" in said


def test_store_of_a_newer_version(refused: Callable[..., str], cli: Cli, world: Path) -> None:
    assert cli("run", "single:more", *RUN[2:], "--store", "old.db").code == 0
    with sqlite3.connect(world / "old.db") as database:
        database.execute("UPDATE swarm_version SET version_num = '9999'")
    for command in (OPTIMIZE, ("runs",), ("show", "1"), ("run", "1", *RUN[2:])):
        said = refused(*command, "--store", "old.db")
        assert "old.db` has revision `9999`" in said
        assert "upgrade with pip install -U agent-swarm" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "gone.json", *RUN[2:]), "`gone.json`: no such file: GRAPH is a JSON file"),
        (("run", "script.py", *RUN[2:]), "`script.py`: not JSON"),
        (("run", "chian:more", *RUN[2:]), "`chian` is no topology (did you mean `chain`?)"),
        (("run", "chain:", *RUN[2:]), "no experts"),
        (("run", "debate:more,same,round=3", *RUN[2:]), "`debate` takes `rounds=`"),
        (("run", "single:more,same", *RUN[2:]), "`single` has one expert, not 2"),
        (("run", "0", *RUN[2:]), "`0` can't be the id of a run"),
        (("run", "7", *RUN[2:]), "there is no store at"),
        (("run", "single:more", "--question", "start 1"), "`--pool` is missing"),
        (("run", "single:more", "--pool", "pool.toml"), "give `--question` or `--task`"),
        ((*ASK, "--task", "task.toml"), "exclude each other"),
        ((*RUN, "--limit", "0"), "--limit"),
        (("run", "single:more", *RUN[2:], "--split", "tset"), "no split `tset` (did you mean"),
        (("runs", "--stroe", "x.db"), "--store"),
        (("shwo", "1"), "show"),
        (("show", "last"), "RUN"),
        (("show", "1", "--trace", "0", "--batches"), "exclude each other"),
        ((*OPTIMIZE, "--set", "particles"), "must be `key=value`"),
        ((*OPTIMIZE, "--set", "particels=3"), "--set particels=3`: `RoleStep`: key `particels`"),
        (("optimize", "jbo.toml"), "`jbo.toml`: no such file (did you mean `job.toml`?)"),
        (("optimize", "jbo.py"), "`jbo.py`: no such file"),
    ],
)
def test_bad_arguments(refused: Callable[..., str], arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("pool = 1", "defines no `job`: it must be an optimizer"),
        ("import swarm\njob = 3", "`job` is `3`: must be an optimizer such as `swarm.RoleStep(…)`"),
        ("x = 1\ny = x / 0", "job.py:2`: ZeroDivisionError: division by zero"),
        ("def f(:", "job.py:1`: SyntaxError"),
        ("import swarm\nswarm.Pool([])", "`job.py`: pool `pool` has no experts"),
    ],
)
def test_python_job(refused: Callable[..., str], world: Path, code: str, said: str) -> None:
    (world / "job.py").write_text(code)
    assert said in refused("optimize", "job.py")


def test_runs_and_traces_that_are_not_there(cli: Cli) -> None:
    assert cli("run", "single:more", *RUN[2:]).code == 0
    assert cli("show", "9") == (2, "", "error: there is no run 9 in this store: the latest is 1\n")
    assert cli("replay", "9").code == 2
    code, out, err = cli("show", "1", "--trace", "4")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "it has the traces 0 to 3" in err


def test_traceback_only_on_request(cli: Cli) -> None:
    code, _, err = cli("run", "gone.json", *RUN[2:], "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: `gone.json`")
