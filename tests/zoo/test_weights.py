"""The weights themselves: they load as ordinary models and do what the model card says."""

import json

import pytest
from make_tasks import HERE as ZOO
from make_tasks import RIGHT

import swarm
from swarm.agents.expert import Pool
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


def test_adapters_name_the_base_beside_them() -> None:
    for folder in (ZOO / "adapters").iterdir():
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (folder / config["base_model_name_or_path"]).resolve() == ZOO / "base"
