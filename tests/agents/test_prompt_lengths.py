"""What a server is asked of lengths, what is made of its answers, and what where it has none."""

from __future__ import annotations

import asyncio
import json

import pytest
from engine_contract import ask, greedy
from http_server import CONTEXT, Server, _Handler

import swarm
from swarm.agents.engines import prices
from swarm.agents.engines.determinism import Determinism
from swarm.agents.engines.prompt_lengths import AROUND
from swarm.agents.engines.server import ServerEngine
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Message
from swarm.errors import ConfigError, EngineError
from swarm.graphs import chain

pytestmark = pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")


class Talkative(_Handler):
    """Also says how long prompts are, as its server is told to."""

    def do_GET(self):
        self.owner.questions.append(self.path)
        self.say(*self.owner.models(self.path))

    def do_POST(self):
        if not self.path.endswith("/tokenize"):
            return super().do_POST()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.owner.questions.append({"authorization": self.headers.get("Authorization"), **body})
        self.say(*self.owner.tokenize(body))
        return None

    def say(self, status, answer):
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def count(body):
    prompt = "\n".join(message["content"] for message in body["messages"])
    return len(body["messages"]) + prompt.count(" ")


def as_vllm(body):
    tokens = count(body)
    return 200, {"count": tokens, "max_model_len": CONTEXT, "tokens": [7] * tokens}


def unknown(*_):
    return 404, {"detail": "Not Found"}


class Lengths(Server):
    def __init__(self):
        self.questions = []
        self.tokenize, self.models = unknown, unknown
        super().__init__()
        self._http.RequestHandlerClass = type("Handler", (Talkative,), {"owner": self})


@pytest.fixture
def server():
    server = Lengths()
    yield server
    server.close()


@pytest.fixture
def engine():
    return ServerEngine(backoff=0.01)


def expert_at(url, name="e", *, tokens=12, **how):
    options = {"url": url, "deadline": 5, **how.pop("options", {})}
    sampling = greedy().model_copy(update={"max_tokens": tokens})
    settings = {"engine": "server", "model": "openai/tiny", "prompt": "compact", **how}
    return Expert(name=name, sampling=sampling, options=options, **settings)


PROMPTS = [ask("w1"), ask("w1 w2 w3"), (Message("system", "be w4"), *ask("\ud800 w5"))]


def lengths(engine, expert, prompts=PROMPTS):
    return asyncio.run(engine.count(expert, prompts))


def test_an_endpoint_that_counts_is_asked(server, engine, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-0123456789")
    server.tokenize = as_vllm
    expert = expert_at(server.url, options={"key": "MY_KEY"})
    assert lengths(engine, expert) == ([1, 3, 4], True)
    assert asyncio.run(engine.context(expert)) == CONTEXT
    # They are asked at once, and may come in any order.
    counted = server.questions[1:]
    assert {asked["model"] for asked in counted} == {"tiny"}
    assert [{"role": "user", "content": "w1"}] in [asked["messages"] for asked in counted]
    assert {asked["authorization"] for asked in server.questions} == {"Bearer sk-0123456789"}
    assert len(server.questions) == 1 + len(PROMPTS), "one to learn that it counts"
    assert server.asked == [], "the model was not asked"


@pytest.mark.parametrize(
    ("cards", "context"),
    [
        ([{"id": "tiny", "max_model_len": 77}], 77),
        ([{"id": "base", "max_model_len": 78}, {"id": "tiny", "parent": "base"}], 78),
        ([{"id": "base", "max_model_len": 78}], None),
        ([{"id": "tiny", "max_model_len": "77"}, 5], None),
        ("none", None),
    ],
)
def test_of_others_the_list_of_models_is_read(server, engine, cards, context):
    server.models = lambda path: (200, {"object": "list", "data": cards})
    assert asyncio.run(engine.context(expert_at(server.url))) == context
    assert server.questions[-1] == "/plain/v1/models"


@pytest.mark.parametrize("answer", [(404, {}), (200, b"<html>"), (200, [1]), (400, {}), (501, b"")])
def test_where_nobody_counts_it_is_estimated_rather_too_high(server, engine, answer):
    server.tokenize = lambda body: answer
    counted = lengths(engine, expert_at(server.url))
    assert not counted.exact
    for prompt, estimate in zip(PROMPTS, counted.tokens, strict=True):
        words = sum(len(content.split()) for _, content in prompt)
        size = sum(len(content.encode("utf-8", "replace")) for _, content in prompt)
        assert words <= estimate <= AROUND + size


def test_what_passes_is_tried_again(server, engine):
    faults = [(500, {}), (429, {}), (408, {})]
    server.tokenize = lambda body: faults.pop() if faults else as_vllm(body)
    assert lengths(engine, expert_at(server.url)).tokens == [1, 3, 4]


def test_no_answer_in_time_is_an_error_that_says_so(engine):
    gone = expert_at("http://127.0.0.1:1/v1", overflow="shorten", options={"deadline": 0.2})
    with pytest.raises(EngineError, match=r"connection lost or refused.*`deadline` 0.2 s"):
        asyncio.run(engine.context(gone))


def test_to_shorten_it_must_be_known_how_much_fits(server, engine):
    expert = expert_at(server.url, overflow="shorten")
    with pytest.raises(EngineError, match=r"its endpoint does not say .*: give it a `context`"):
        asyncio.run(engine.context(expert))
    told = expert.model_copy(update={"context": 60})
    assert asyncio.run(engine.context(told)) == 60


def test_hosted_models_hold_what_the_list_says(engine, monkeypatch):
    entry = {"litellm_provider": "host", "max_input_tokens": 1234}
    monkeypatch.setattr(prices, "_list", lambda: {"big": entry})

    def expert(model):
        return Expert(name="e", engine="server", model=model, overflow="shorten")

    assert asyncio.run(engine.context(expert("host/big"))) == 1234
    with pytest.raises(EngineError, match="LiteLLM's list does not say"):
        asyncio.run(engine.context(expert("host/other")))
    assert not lengths(engine, expert("host/big")).exact


def graph_of(server, **how):
    """A chain whose last agent reads a long response."""

    def talks(messages):
        return " ".join(f"w{k % 200}" for k in range(150))

    pool = Pool([Expert.scripted("talker", talks), expert_at(server.url, "reader", **how)])
    return swarm.System(chain(["talker", "reader"]), pool, runtime=swarm.Runtime())


def test_a_prompt_too_long_for_the_server_is_its_own_clear_error(server):
    [trace] = graph_of(server).batch(["why"])
    told = "400: a prompt of 152 tokens is more than the 100 of this model"
    assert trace.error.startswith("`reader`")
    assert told in trace.error
    assert server.questions == [], "nobody wanted to know before"


@pytest.mark.parametrize("how", [{}, {"context": 80}])
def test_or_is_shortened_to_what_the_server_counts(server, how):
    server.tokenize = as_vllm
    [trace] = graph_of(server, overflow="shorten", **how).batch(["why"])
    assert trace.error is None
    [body] = server.asked
    assert count(body) <= how.get("context", CONTEXT) - 12
    assert count(body) >= how.get("context", CONTEXT) - 14
    said, asked, _ = body["messages"][-1]["content"].splitlines()
    assert said.startswith("1: […] w")
    assert said.endswith(" w149")
    assert asked == "Question: why"
    [cut] = trace.calls[-1].shortened
    assert (cut.response, cut.of) == (1, len(trace.calls[0].response.text))
    assert len(server.questions) < 20


def test_or_to_what_is_estimated(server):
    [trace] = graph_of(server, overflow="shorten", context=300).batch(["why"])
    assert trace.error is None
    assert trace.calls[-1].shortened
    [body] = server.asked
    assert count(body) < CONTEXT


def test_or_refused_before_it_is_sent(server):
    server.tokenize = as_vllm
    [trace] = graph_of(server, context=90).batch(["why"])
    assert "a prompt of 152 tokens and `max_tokens` 12 are more than its context of 90" in (
        trace.error
    )
    server.tokenize = unknown
    [trace] = graph_of(server, context=90).batch(["why"])
    assert "a prompt of about" in trace.error
    assert server.asked == []


def test_what_servers_promise(server):
    engine = ServerEngine
    hosted = Expert(name="e", engine="server", model="host/big")
    assert engine.determinism(hosted) is Determinism.REPLAY_ONLY
    assert engine.determinism(expert_at(server.url)) is Determinism.SEEDED
    for said in Determinism:
        stated = expert_at(server.url, options={"determinism": said.value})
        engine.check(stated, "it")
        assert engine.determinism(stated) is said
        assert stated.fingerprint == expert_at(server.url).fingerprint
    for options in ({"determinism": "sure", "url": server.url}, {"determinism": "bitwise"}):
        with pytest.raises(ConfigError, match="determinism"):
            Pool([hosted.model_copy(update={"options": options})])
