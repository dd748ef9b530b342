"""A system that was found is written to a folder, and is the same system when it is read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import swarm
from swarm.agents.mixing import Mixer
from swarm.errors import InputError, PoolError
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.wording import WordingOptimizer

pytest.importorskip("torch")
pytest.importorskip("peft")

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


@pytest.fixture(scope="module")
def system():
    pool = swarm.Pool.load(ZOO / "pool.toml").subset("gap", "double", "mirror")
    mixer, rng = Mixer(pool), np.random.default_rng(0)
    moved = [mixer.expert(k, rng.dirichlet(np.ones(3)), f"{n}@2") for k, n in enumerate(pool)]
    found = swarm.Pool([pool["gap"], *moved[1:]], name='the "found" ones')
    return swarm.chain("gap", "double@2", "mirror@2", pool=found)


def test_what_is_read_again_answers_the_same(system, tmp_path):
    system.export(tmp_path / "found")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found"]
    assert sorted(p.name for p in (tmp_path / "found" / "experts").iterdir()) == [
        "double@2",
        "mirror@2",
    ]
    moved = (tmp_path / "found").rename(tmp_path / "elsewhere")
    pool = swarm.Pool.load(moved / "pool.toml")
    graph = swarm.AgentGraph.from_json((moved / "graph.json").read_text())
    assert graph == system.graph
    assert pool.name == system.pool.name
    questions = [e.prompt for e in swarm.Task.load(ZOO / "skills.toml").split("dev")[:40]]
    again = [trace.text for trace in swarm.System(graph, pool).batch(questions)]
    assert again == [trace.text for trace in system.batch(questions)]


def test_nothing_is_overwritten_or_left_behind(system, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="already there"):
        system.export(tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("swarm.runtime.export.export_expert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        system.export(tmp_path / "found")
    assert list(tmp_path.iterdir()) == []


def test_a_name_cannot_leave_the_folder(system, tmp_path):
    moved = system.pool["mirror@2"].model_copy(update={"name": "../../mirror"})
    swarm.single("../../mirror", pool=swarm.Pool([moved])).export(tmp_path / "a" / "found")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    pool = swarm.Pool.load(tmp_path / "a" / "found" / "pool.toml")
    assert Path(pool["../../mirror"].adapter) == tmp_path / "a" / "found" / "experts" / "1"


def test_a_function_cannot_be_exported(tmp_path):
    pool = swarm.Pool([swarm.Expert.scripted("f", lambda m: "x")])
    with pytest.raises(InputError, match="`f` is a Python function"):
        swarm.single("f", pool=pool).export(tmp_path / "found")


def test_a_policy_and_what_it_chooses_from(system, tmp_path):
    task = swarm.Task.load(ZOO / "skills.toml")
    learned = Outcomes(
        [example.prompt for example in task.dev],
        list(system.pool),
        np.random.default_rng(0).random((len(task.dev), 3)),
        np.zeros((len(task.dev), 3)),
    )
    policy = WordingOptimizer().learn(learned)
    chosen = swarm.System(policy, system.pool)
    chosen.export(tmp_path / "found")
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == [
        "experts",
        "policy.json",
        "policy.safetensors",
        "pool.toml",
    ]
    moved = (tmp_path / "found").rename(tmp_path / "elsewhere")
    again = swarm.System.load(moved)
    assert list(again.pool) == list(policy.experts)
    questions = [e.prompt for e in task.dev[:20]]
    traces = chosen.batch(questions)
    assert len({trace.graph for trace in traces}) > 1
    assert [trace[:2] for trace in again.batch(questions)] == [trace[:2] for trace in traces]
    with pytest.raises(PoolError, match="`mirror@2`"):
        swarm.System.load(moved, pool=again.pool.subset("gap", "double@2"))
    less = swarm.System.load(moved, pool=again.pool.subset("gap", "double@2"), drop=True)
    assert less.policy.experts == ("gap", "double@2")


def test_a_graph_is_loaded_with_its_pool(system, tmp_path):
    system.export(tmp_path / "found")
    assert swarm.System.load(tmp_path / "found").graph == system.graph
    (tmp_path / "found" / "graph.json").unlink()
    with pytest.raises(InputError, match="no policy is there"):
        swarm.System.load(tmp_path / "found")
