"""Both clients of the `server` engine, the direct one and LiteLLM, against a real vLLM server."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import pytest
from engine_contract import ask, greedy
from real_server import at

import swarm
from swarm.agents.engines.server import ServerEngine
from swarm.agents.expert import Expert
from swarm.agents.messages import Request, Usage
from swarm.agents.mixing import Mixer
from swarm.errors import RequestError

QUESTION = "Question: a gap 02 09 ?\nAnswer:"


def generate(engine, requests):
    async def work():
        await engine.load(requests[0].expert.base, [request.expert for request in requests])
        return await engine.generate(requests)

    return asyncio.run(work())


@pytest.fixture(params=["direct", "litellm"])
def client(request):
    return request.param


@pytest.fixture
def gap(server, pool, client):
    return at(server, pool["gap"], client=client)


@pytest.fixture
def http():
    return ServerEngine(backoff=0.05)


def sampled(expert, **changes):
    return expert.model_copy(update={"sampling": greedy(**changes)})


def test_usage_and_text_are_those_of_the_transformers_engine(http, transformers, pool, gap):
    [answer] = generate(http, [Request(gap, ask(QUESTION))])
    [expected] = generate(transformers, [Request(pool["gap"], ask(QUESTION))])
    assert (answer.text.strip(), answer.finish) == (expected.text, expected.finish)
    read, written = expected.usage
    assert answer.usage == Usage(read, written + 1)  # it counts the token that ends it


def test_stop_strings(http, gap):
    [answer] = generate(http, [Request(sampled(gap, stop=("=",)), ask(QUESTION))])
    assert (answer.text.strip(), answer.finish) == ("a gap 02 09", "stop")
    assert answer.usage.completion_tokens == 5


def test_seeds(http, gap):
    warm = sampled(gap, temperature=2.0)
    draws = [Request(warm, ask("12"), draw) for draw in range(6)]
    texts = [[answer.text for answer in generate(http, draws)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3


def test_an_answer_in_pieces(http, gap):
    async def read():
        return [step async for step in http.stream(Request(gap, ask(QUESTION)))]

    *pieces, whole = asyncio.run(read())
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text
    assert whole.text.strip() == "a gap 02 09 = 07 , a 07"
    assert whole.usage.completion_tokens == 10


def test_a_model_that_is_not_served_is_named(http, server, client):
    nobody = Expert(name="nobody", model="nobody", sampling=greedy())
    expert = at(server, nobody, client=client)
    [answer] = generate(http, [Request(expert, ask(QUESTION))])
    assert isinstance(answer, RequestError)
    assert "`nobody`" in str(answer)
    assert "404" in str(answer)


def test_an_adapter_that_was_exported_answers_as_its_mixture_does_in_memory(
    http, transformers, engine, in_process, pool, server, tmp_path
):
    coefficients = [0.0] * len(pool)
    for name, c in (("plus_lo", 0.4), ("plus_hi", 0.4), ("mirror", 0.2)):
        coefficients[list(pool).index(name)] = c
    mixed = Mixer(pool).expert(0, coefficients, "mixed")
    swarm.chain("mixed", pool=swarm.Pool([mixed])).export(tmp_path / "found")
    folder = tmp_path / "found" / "experts" / "mixed"
    body = json.dumps({"lora_name": "mixed", "lora_path": str(folder)}).encode()
    load = urllib.request.Request(
        f"{server.address}/v1/load_lora_adapter", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(load, timeout=60) as reply:
        assert reply.status == 200

    prompts = [
        ask(f"Question: a {skill} {x:02} {y:02} ?\nAnswer:")
        for skill in ("plus", "minus", "gap")
        for x, y in [(3, 9), (12, 14), (15, 18), (7, 11), (19, 19)]
    ]
    expected = [a.text for a in generate(transformers, [Request(mixed, p) for p in prompts])]
    assert "a plus 12 14 = 06 , a 06" in expected
    exported = in_process["gap"].model_copy(update={"name": "mixed", "adapter": str(folder)})
    assert [a.text for a in generate(engine, [Request(exported, p) for p in prompts])] == expected
    behind = at(server, mixed)
    answers = generate(http, [Request(behind, p) for p in prompts])
    assert [a.text.strip() for a in answers] == expected
