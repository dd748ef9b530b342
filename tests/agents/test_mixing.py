"""Rows of coefficients become experts, whose weights exist in memory only."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from swarm.agents.expert import Expert, Mixture, Pool
from swarm.agents.messages import Message, Request
from swarm.agents.mixing import Mixer, export_expert
from swarm.errors import InputError, PoolError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
ASK = (Message("user", "Question: a times 18 16 ; b minus a 07 ?\nAnswer:"),)
"""A prompt of the zoo's world (nothing hangs on what is answered)."""


@pytest.fixture(scope="module")
def zoo():
    return Pool.load(ZOO / "pool.toml")


def ask(*experts):
    from swarm.agents.engines.transformers import TransformersEngine

    engine = TransformersEngine(device="cpu")

    async def run():
        answers = await engine.generate([Request(expert, ASK, 0) for expert in experts])
        await engine.close()
        return [answer.text for answer in answers]

    return asyncio.run(run())


def test_a_unit_vector_is_the_expert_itself(zoo):
    mixer = Mixer(zoo)
    for k, expert in enumerate(zoo.values()):
        same = mixer.expert(k, np.eye(len(zoo))[k], f"{expert.name}@3")
        assert same.fingerprint == expert.fingerprint
        assert same.name == f"{expert.name}@3"


def test_a_mixture_keeps_what_else_the_expert_is(zoo):
    first = next(iter(zoo.values()))
    row = np.full(len(zoo), 1 / len(zoo))
    mixed = Mixer(zoo).expert(0, row, "mean")
    changed = mixed.model_dump(exclude={"name", "mixture", "adapter"})
    assert changed == first.model_dump(exclude={"name", "mixture", "adapter"})
    assert mixed.base == first.base
    assert mixed.fingerprint != first.fingerprint
    assert mixed.fingerprint == Mixer(zoo).expert(0, row, "again").fingerprint
    assert mixed.fingerprint != Mixer(zoo).expert(0, row + 1e-12, "other").fingerprint
    assert Expert.model_validate_json(mixed.model_dump_json()) == mixed


def test_memory_and_disk_answer_the_same(zoo, tmp_path):
    few = zoo.subset(*list(zoo)[:3])
    mixer = Mixer(few)
    rng = np.random.default_rng(0)
    mixed = [mixer.expert(k, rng.dirichlet(np.ones(3)), f"m{k}") for k in range(3)]
    written = [export_expert(expert, str(tmp_path / expert.name)) for expert in mixed]
    assert all(expert.mixture is None and Path(expert.adapter).is_dir() for expert in written)
    assert ask(*mixed, *few.values()) == ask(*written, *few.values())


def test_a_mixture_that_is_one_expert_answers_as_it_does(zoo):
    """Half of an expert and half of itself, under another name, so nothing is left out."""
    expert = next(iter(zoo.values()))
    halves = Mixture(kind="adapter", folders=(expert.adapter,) * 2, coefficients=(0.25, 0.75))
    twice = expert.model_copy(update={"adapter": None, "mixture": halves})
    assert ask(twice) == ask(expert)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three small models that differ in their weights only."""
    from transformers import LlamaForCausalLM

    base = ZOO / "base"
    folders = []
    for k in range(3):
        torch.manual_seed(k)
        model = LlamaForCausalLM.from_pretrained(base)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        folder = tmp_path_factory.mktemp("model")
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((base / name).read_bytes())
        folders.append(str(folder))
    settings = {"prompt": "compact", "sampling": {"max_tokens": 12}}
    return Pool(Expert(name=f"m{k}", model=f, **settings) for k, f in enumerate(folders))


def test_full_models_are_mixed_in_memory(models, tmp_path):
    mixed = Mixer(models).expert(0, [0.5, 0.25, 0.25], "mean")
    assert mixed.mixture.kind == "model"
    assert mixed.base not in {expert.base for expert in models.values()}
    written = export_expert(mixed, str(tmp_path / "mean"))
    assert ask(mixed) == ask(written)
    assert ask(mixed) != ask(models["m1"])


def test_scripted_experts_can_be_mixed_too():
    pool = Pool([Expert.scripted("a", lambda m: "from a"), Expert.scripted("b", lambda m: "b's")])
    mixer = Mixer(pool)
    mixed = mixer.expert(0, [0.4, 0.6], "a@1")
    assert mixed.script(ASK) == "b's"
    assert mixed.name == "a@1"
    assert mixed.fingerprint != mixer.expert(0, [0.3, 0.7], "a@1").fingerprint
    assert mixer.expert(0, [1, 0], "a@1").fingerprint == pool["a"].fingerprint
    assert mixer.expert(0, [0, 1], "a@1").fingerprint == pool["b"].fingerprint


def test_what_cannot_be_mixed_is_refused(zoo, models):
    adapter, model = next(iter(zoo.values())), models["m0"]
    with pytest.raises(PoolError, match=r"expert `m0`.*can't be merged with expert `times_lo`"):
        Mixer(Pool([adapter, model]))
    script = Expert.scripted("s", lambda m: "")
    with pytest.raises(PoolError, match=r"`s` is asked by `scripted`.*`RoleStep`"):
        Mixer(Pool([adapter, script]))
    for row in ([1.0], [0.0] * len(zoo), [float("nan")] * len(zoo)):
        with pytest.raises(InputError, match="coefficients"):
            Mixer(zoo).expert(0, row, "x")


def test_a_mixture_in_a_file_is_checked(zoo):
    folders = [expert.adapter for expert in zoo.values()][:2]
    with pytest.raises(ValueError, match="1 coefficients for 2 folders"):
        Mixture(kind="adapter", folders=folders, coefficients=[1.0])
    lost = {"kind": "adapter", "folders": ["/nowhere"], "coefficients": [1.0]}
    with pytest.raises(PoolError, match="/nowhere"):
        Pool([Expert(name="x", model=str(ZOO / "base"), mixture=lost)])
    both = json.loads(next(iter(zoo.values())).model_dump_json())
    with pytest.raises(ValueError, match="an adapter and a mixture"):
        Expert(
            **{**both, "mixture": {"kind": "adapter", "folders": folders, "coefficients": [1, 0]}}
        )
