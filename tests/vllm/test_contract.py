"""Both engines keep the contract on a real vLLM: in this process, and behind HTTP."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from engine_contract import EngineContract, ask, greedy
from real_server import CONTEXT, ZOO, at

import swarm
from swarm.agents.engines.server import ServerEngine
from swarm.agents.expert import Expert
from swarm.agents.messages import Request
from swarm.errors import EngineError

NAMES = ("gap", "double", "mirror")
PROMPTS = [
    "Question: a plus 16 10 ; b",
    "1: a times 18 16 = 08 , a 08\nQuestion: a times 18 16 ; b gap a 17 ?\nAnswer:",
    "1: a plus 03 09 = 12 , a 12\nQuestion: a plus 03 09 ; b double a ; c mirror b ?\nAnswer:",
    "1: a minus 05 14 = 11 , a 11\nQuestion: a minus 05 14 ; b mirror a ?\nAnswer:",
    "1: b double 07 = 14 , a 07 b 14\nQuestion: a minus 05 18 ; b double a ; c gap b 15 ?\nAnswer:",
]
"""What the zoo was trained on, but for the first, which leaves it something to draw. Of nonsense
its experts may make nothing, and which nonsense may hang on the last bit of a sum: at a server, it
is not always taken in the same order."""


class OnTheZoo(EngineContract):
    @pytest.fixture
    def prompts(self):
        return PROMPTS

    @pytest.fixture
    def words(self):
        return ["12", "double", "times", "gap", "mirror", "pass", "a", "plus", "07"]

    @pytest.fixture
    def crowd(self, experts):
        questions = [example.question for example in swarm.Task.load(ZOO / "relay.toml").dev[:24]]
        asked = [ask(f"Question: {question}\nAnswer:") for question in questions]
        return [Request(expert, messages) for messages in asked for expert in experts]


@contextmanager
def when(under_way, do):
    """Does it on a thread as soon as something is under way."""
    over = threading.Event()

    def wait():
        while not over.is_set() and not under_way():
            time.sleep(0.001)
        if not over.is_set():
            do()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class TestInProcess(OnTheZoo):
    @pytest.fixture
    def engine(self, engine):
        return engine

    @pytest.fixture
    def experts(self, in_process):
        return [in_process[n].model_copy(update={"sampling": greedy()}) for n in NAMES]

    @pytest.fixture
    def hopeless(self, experts):
        told = ["a prompt of 251 tokens and `max_tokens` 12", "256", "lower `max_tokens`"]
        return Request(experts[1], ask("pass " * 250)), told

    @pytest.fixture
    def sabotage(self):
        @contextmanager
        def killed(engine):
            [core] = engine._cores.values()
            [process] = core._engine.engine_core.resources.engine_manager.processes
            with when(core._engine.get_num_unfinished_requests, process.kill):
                yield

        return killed

    @pytest.fixture
    def broken(self, tmp_path):
        return Expert(name="gone", engine="vllm", model=str(tmp_path / "gone"), sampling=greedy())


class TestServer(OnTheZoo):
    @pytest.fixture
    def engine(self):
        return ServerEngine(backoff=0.05)

    @pytest.fixture
    def experts(self, server):
        return [
            at(
                server,
                Expert(name=name, model=str(ZOO / "base"), sampling=greedy()),
                timeout=20,
                deadline=20,
            )
            for name in NAMES
        ]

    @pytest.fixture
    def hopeless(self, experts):
        return Request(experts[1], ask("pass " * 300)), ["`double`", str(CONTEXT)]

    @pytest.fixture
    def sabotage(self, server):
        @contextmanager
        def stuck(engine):
            # At once: whoever waits until the server says that it answers may find it has done so.
            group = server.process.pid
            os.killpg(group, signal.SIGSTOP)
            try:
                yield
            finally:
                os.killpg(group, signal.SIGCONT)

        return stuck

    @pytest.fixture
    def broken(self, server, experts):
        options = {"url": "http://127.0.0.1:1/v1", "deadline": 0.3}
        return experts[0].model_copy(update={"options": options})

    def test_an_engine_that_cannot_answer_says_so(self, engine, broken, words):
        # There is no engine that fails as a whole: each request fails for itself.
        [answer] = self.generate(engine, [Request(broken, ask(words[0]))])
        assert isinstance(answer, EngineError)
        assert "\n" not in str(answer)
