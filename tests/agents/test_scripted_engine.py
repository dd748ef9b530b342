"""The scripted engine keeps the contract, and says what a script did wrong."""

from __future__ import annotations

import asyncio

import pytest
from engine_contract import EngineContract, after, ask, greedy

from swarm.agents.engines import create_engine, scripted
from swarm.agents.expert import Expert
from swarm.agents.messages import Request, Response, Usage
from swarm.errors import EngineError


def echo(messages):
    """Says every word twice; fails on request."""
    if "fail" in messages[-1].content:
        raise LookupError("asked to fail")
    words = messages[-1].content.split()
    return " ".join(word for word in words for _ in range(2))


def backwards(messages):
    return echo(messages)[::-1]


class TestScripted(EngineContract):
    samples = False
    waits = False

    @pytest.fixture
    def engine(self):
        return create_engine("scripted")

    @pytest.fixture
    def experts(self):
        return [
            Expert.scripted("echo", echo, sampling=greedy()),
            Expert.scripted("backwards", backwards, sampling=greedy()),
        ]

    @pytest.fixture
    def prompts(self):
        return ["one", "two three", "four five six seven", "eight nine " * 20]

    @pytest.fixture
    def hopeless(self, experts):
        return Request(experts[0], ask("fail")), ["the script of `echo` raised", "asked to fail"]

    @pytest.fixture
    def broken(self):
        return Expert(name="mute", engine="scripted", model="x")

    @pytest.fixture
    def sabotage(self):
        return lambda engine: after(4, scripted, "_usage", MemoryError("no room"))

    @pytest.fixture
    def parrot(self):
        return Expert.scripted("parrot", lambda messages: messages[-1].content)


def generate(*requests):
    return asyncio.run(create_engine("scripted").generate(requests))


def test_a_table_answers_by_the_users_text():
    expert = Expert.scripted("table", {"2 + 2": "4"})
    answers = generate(Request(expert, ask("2 + 2")), Request(expert, ask("2 + 3")))
    assert answers == [Response("4", Usage(3, 1)), Response("", Usage(3, 0))]


def test_a_script_that_gives_no_text_fails_its_request():
    def odd(messages):
        return None if "none" in messages[-1].content else "fine"

    expert = Expert.scripted("odd", odd)
    none, fine = generate(Request(expert, ask("none")), Request(expert, ask("x")))
    assert isinstance(none, EngineError)
    assert "`odd`" in str(none)
    assert fine.text == "fine"


def test_an_expert_without_a_script_says_how_to_get_one():
    with pytest.raises(EngineError, match=r"`mute` has no script: make it with `Expert.scripted`"):
        generate(Request(Expert(name="mute", engine="scripted", model="x"), ask("x")))
