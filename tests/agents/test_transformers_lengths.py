"""What the transformers engine says of lengths is what its models then read."""

from __future__ import annotations

import asyncio
import random
import shutil

import pytest
from engine_contract import ask, greedy

import swarm
from swarm.agents.engines import create_engine
from swarm.agents.engines.determinism import Determinism
from swarm.agents.expert import Expert
from swarm.agents.messages import Message, Request, Response
from swarm.agents.shortening import MARK
from swarm.errors import EngineError
from swarm.graphs import star

pytest.importorskip("torch")
pytest.importorskip("peft")

CONTEXT = 128
"""Of the tiny model."""


@pytest.fixture(scope="module")
def engine():
    engine = create_engine("transformers", device="cpu")
    yield engine
    asyncio.run(engine.close())


def expert_of(zoo, **how):
    adapter = str(zoo / "half")
    settings = {"model": str(zoo / "base"), "adapter": adapter, "sampling": greedy(), **how}
    return Expert(name="reader", prompt="compact", **settings)


def test_what_is_counted_is_what_is_read(zoo, engine):
    prompts = [
        *map(ask, ["", " ", "w1", "w1 w2\nw3", "naïve ☃ 日本語", "\ud800 alone", "w5 " * 100]),
        (Message("system", "w1 w2"), Message("user", "w3")),
    ]
    expert = expert_of(zoo)
    counted = asyncio.run(engine.count(expert, prompts))
    answers = asyncio.run(engine.generate([Request(expert, prompt) for prompt in prompts]))
    assert counted.exact
    assert list(counted.tokens) == [answer.usage.prompt_tokens for answer in answers]


def test_neither_needs_the_model(zoo, tmp_path, engine):
    shutil.copytree(zoo / "base", tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    expert = expert_of(zoo, model=str(tmp_path / "base"), adapter=None)
    assert asyncio.run(engine.count(expert, [ask("w1 w2")])).tokens == [3]
    assert asyncio.run(engine.context(expert)) == CONTEXT


@pytest.mark.parametrize(("said", "held"), [(None, 128), (64, 64), (1000, 128)])
def test_the_context_is_the_models_or_less(zoo, engine, said, held):
    assert asyncio.run(engine.context(expert_of(zoo, context=said))) == held


def test_a_folder_that_is_damaged(zoo, tmp_path, engine):
    expert = expert_of(zoo, model=str(tmp_path), adapter=None)
    assert asyncio.run(engine.context(expert)) is None
    with pytest.raises(EngineError, match="can't be counted") as caught:
        asyncio.run(engine.count(expert, [ask("w1")]))
    assert "\n" not in str(caught.value)


def test_counting_does_not_wait_for_a_batch(zoo, engine):
    expert = expert_of(zoo, sampling=greedy().model_copy(update={"max_tokens": 60}))

    async def work():
        requests = [Request(expert, ask(f"w{k} w1")) for k in range(60)]
        running = asyncio.create_task(engine.generate(requests))
        await asyncio.sleep(0)
        counted = await engine.count(expert, [ask("w1")])
        early = not running.done()
        answers = await running
        return counted.tokens, early, all(isinstance(answer, Response) for answer in answers)

    asyncio.run(engine.count(expert, [ask("w1")]))
    assert asyncio.run(work()) == ([2], True, True)


def test_prompts_are_cut_to_what_the_model_holds(zoo, engine):
    def talks(messages):
        rng = random.Random(messages[-1].content)
        return " ".join(f"w{rng.randrange(60)}" for _ in range(100))

    talkers = [swarm.Expert.scripted(name, talks) for name in ("first", "second")]
    pool = swarm.Pool([*talkers, expert_of(zoo, overflow="shorten")])
    graph = star(["first", "second", "reader"])
    system = swarm.System(graph, pool, runtime=swarm.Runtime({"transformers": engine}))
    for trace in system.batch([f"w{k}" for k in range(5)]):
        *_, call = trace.calls
        assert trace.error is None
        assert CONTEXT - 12 - 2 <= call.response.usage.prompt_tokens <= CONTEXT - 12
        assert call.prompt[-1].content.startswith(f"1: {MARK}")
        assert call.shortened[0].response == 1
        assert f"Question: {trace.question}" in call.prompt[-1].content


def test_what_it_promises(zoo):
    # The same text comes back in other company (see the contract), but not from the same bits.
    assert create_engine("transformers").determinism(expert_of(zoo)) is Determinism.SEEDED
