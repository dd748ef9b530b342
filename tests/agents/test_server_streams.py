"""Answers in pieces: as they come, whole in the end, and what happens to a stream that fails."""

from __future__ import annotations

import asyncio
import time

import pytest
from engine_contract import ask, greedy
from http_server import Fault, Server, refusal

import swarm
from swarm.agents.engines.server import ServerEngine
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Request, Response
from swarm.errors import EngineError, RequestError

pytestmark = pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")


@pytest.fixture(params=["direct", "litellm"])
def client(request):
    if request.param == "litellm":
        request.getfixturevalue("warm_litellm")
    return request.param


@pytest.fixture
def server(client):
    server = Server()
    yield server
    server.close()


@pytest.fixture
def expert(server, client):
    return expert_at(server, client)


def expert_at(server, client, name="e", model="plain", **options):
    return Expert(
        name=name,
        engine="server",
        model="openai/tiny",
        sampling=greedy(),
        options={"url": server.at(model), "deadline": 5, "client": client, **options},
    )


def stream(expert, text="w1 w2"):
    """Pieces with the seconds after which they came, the whole answer, and the error."""

    async def work():
        pieces, begun = [], time.monotonic()
        try:
            async for step in ServerEngine(backoff=0.01).stream(Request(expert, ask(text))):
                if isinstance(step, Response):
                    return pieces, step, None
                pieces.append((step, time.monotonic() - begun))
        except EngineError as error:
            return pieces, None, error

    return asyncio.run(work())


def test_pieces_come_before_the_rest_is_written(server, expert):
    server.always = Fault(pieces=3, seconds=0.5)
    pieces, whole, _ = stream(expert)
    assert len(pieces) > 2
    assert "".join(text for text, _ in pieces) == whole.text
    assert pieces[-1][1] - pieces[0][1] > 0.3
    assert server.asked[0]["stream"] is True
    assert server.asked[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("fault", [refusal(500), refusal(429, Retry_After=0), Fault(close=True)])
def test_what_fails_before_the_first_piece_is_asked_again(server, expert, fault):
    server.faults += [fault, fault]
    pieces, whole, error = stream(expert)
    assert error is None
    assert "".join(text for text, _ in pieces) == whole.text
    assert len(server.asked) == 3


def test_a_stream_that_breaks_before_the_first_piece_is_asked_again(server, expert):
    server.faults.append(Fault(pieces=1, close=True))  # nothing but the role
    pieces, whole, error = stream(expert)
    assert error is None
    assert "".join(text for text, _ in pieces) == whole.text
    assert len(server.asked) == 2


def test_a_stream_that_breaks_after_it_is_an_error_and_not_asked_again(server, expert):
    server.faults.append(Fault(pieces=3, close=True))
    pieces, whole, error = stream(expert)
    assert whole is None
    assert isinstance(error, RequestError)
    given = len("".join(text for text, _ in pieces))
    assert given > 0
    assert f"the answer broke off after {given} characters: connection lost" in str(error)
    assert "\n" not in str(error)
    assert len(server.asked) == 1


def test_a_stream_that_stalls(server, client):
    server.faults.append(Fault(pieces=3, seconds=3))
    pieces, whole, error = stream(expert_at(server, client, timeout=1.0))
    assert whole is None
    assert pieces
    assert "broke off" in str(error)
    assert "no answer in `timeout` 1 s" in str(error)
    assert len(server.asked) == 1


def test_a_slow_stream_may_take_longer_than_the_timeout_of_a_piece(server, client):
    server.always = Fault(before_each=0.4)
    pieces, whole, error = stream(expert_at(server, client, timeout=1.5))
    assert pieces[-1][1] > 1.5
    assert error is None
    assert whole.text


def test_a_stream_that_never_says_that_it_is_over(server, client):
    server.faults.append(Fault(done=False))
    pieces, whole, error = stream(expert_at(server, client))
    if client == "direct":
        assert "the answer broke off" in str(error)
    else:  # LiteLLM takes it for an answer
        assert "".join(text for text, _ in pieces) == whole.text


def test_tokens_that_a_stream_does_not_count_are_estimated(server, expert):
    server.faults.append(Fault(body=lambda answer: {**answer, "usage": None}))
    _, whole, _ = stream(expert)
    assert whole.usage.prompt_tokens > 0
    assert whole.usage.completion_tokens >= len(whole.text.split())


def test_a_server_that_does_not_know_the_option_is_asked_without(server, expert):
    server.faults.append(refusal(400, "Unknown parameter: 'stream_options'"))
    _, whole, error = stream(expert)
    assert error is None
    assert whole.usage.completion_tokens > 0
    assert "stream_options" not in server.asked[1]


def test_an_error_in_the_middle_of_a_stream(server, client):
    def broken(answer):
        return {"error": {"message": "out of memory", "type": "x", "code": 400}}

    server.always = Fault(body=broken)
    pieces, whole, error = stream(expert_at(server, client, deadline=0.5))
    assert pieces == []
    assert whole is None
    assert "out of memory" in str(error) or client == "litellm"


def system_of(server, client):
    pool = Pool(expert_at(server, client, name, model=name) for name in ("plain", "parrot"))
    runtime = swarm.Runtime({"server": ServerEngine(backoff=0.01)})
    graph = swarm.graphs.chain(["plain", "parrot"])
    return swarm.System(graph, pool, runtime=runtime)


def test_a_system_tells_who_says_what_as_it_is_said(server, client):
    system = system_of(server, client)
    steps = list(system.stream("w1", tokens=True))
    said = {}
    for agent, piece in steps:
        said[agent] = said.get(agent, "") + piece
    assert list(said) == ["plain", "parrot"]
    assert len(steps) > 4
    asked = len(server.asked)
    trace = system.invoke("w1")  # whole answers are known now
    assert {call.agent.name: call.response.text for call in trace.calls} == said
    assert len(server.asked) == asked
    assert list(system.stream("w1")) == list(said.items())
    assert list(system.stream("w1", tokens=True)) == list(said.items())


def test_a_system_whose_stream_breaks_says_so(server, client):
    server.faults.append(Fault(pieces=3, close=True))
    steps = []
    with pytest.raises(EngineError, match="broke off"):
        steps.extend(system_of(server, client).stream("w1", tokens=True))


async def test_who_listens_no_more_leaves_nothing_behind(server, client):
    system = system_of(server, client)
    async for _ in system.astream("w1", tokens=True):
        break
    assert system.runtime is not None
    assert (await system.ainvoke("w1")).text
