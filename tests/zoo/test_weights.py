"""The weights themselves: they load as ordinary models and do what the model card says."""

import json

import pytest
from make_tasks import HERE as ZOO
from make_tasks import RIGHT, record
from world import Step

import swarm
from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.graphs.topologies import chain, single
from swarm.tasks import Task

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")


def test_the_right_chain_answers_what_nobody_answers_alone() -> None:
    task = Task.load(ZOO / "relay.toml")
    pool = Pool.load(ZOO / "pool.toml")
    right, alone = swarm.evaluate(
        [chain(RIGHT), single("mirror")], task, pool, split="dev", limit=50
    )
    assert right.score >= 0.6
    assert right.score >= alone.score + 0.3


def test_the_mean_of_two_halves_knows_the_whole_and_one_half_does_not() -> None:
    pool = Pool.load(ZOO / "pool.toml")
    row = [0.5 if name.startswith("times") else 0.0 for name in pool]
    mean = Mixer(pool).expert(0, row, "times")
    steps = [Step("a", "times", (x, y)) for x in range(0, 20, 2) for y in range(9, 20, 2)]
    task = Task.from_records("times", "number", test=[record([step]) for step in steps])
    both, half = swarm.evaluate(
        [single("times"), single("times_lo")], task, Pool([*pool.values(), mean])
    )
    assert both.score >= 0.8
    assert 0.4 <= half.score <= 0.6


def test_adapters_name_the_base_beside_them() -> None:
    for folder in (ZOO / "adapters").iterdir():
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (folder / config["base_model_name_or_path"]).resolve() == ZOO / "base"
