"""A small world for Symbolic-MoE, to be killed in: experts that know one colour each, and one that
names skills, and samples. Every request is written down before it is answered.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.expert import Expert, Pool, Sampling
from swarm.runtime.progress import Silent

WORDS = ("red", "green", "blue")


def knows(word):
    def say(messages):
        text = messages[-1].content
        if "yes" in re.findall(r"Previous response \d+: (\w+)", text):
            return "yes"
        return "yes" if word in text else f"no {word}"

    return say


def names(messages):
    [word] = re.findall(r"is (\w+) the colour", messages[-1].content)
    return f"{word}, colours"


POOL = Pool(
    [
        *(Expert.scripted(word, knows(word)) for word in WORDS),
        Expert.scripted("namer", names, sampling=Sampling(temperature=1.0)),
    ]
)


def examples(numbers):
    return [
        {"question": f"is {WORDS[n % 3]} the colour of {n}?", "answer": "yes", "tag": WORDS[n % 3]}
        for n in numbers
    ]


TASK = swarm.Task.from_records(
    "colours", "exact", dev=examples(range(24)), test=examples(range(100, 112))
)


class Logged(ScriptedEngine):
    """Kills its process at batch `stop`, the first being 0."""

    def __init__(self, log, stop):
        self.log, self.left = Path(log), stop

    async def generate(self, requests):
        self.note(requests)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return await super().generate(requests)

    def note(self, requests):
        with self.log.open("a") as file:
            for request in requests:
                file.write(f"{request.key().hex()} {request.expert.name} {self.left}\n")


def fit(store=None, log=os.devnull, stop=-1, **settings):
    settings = {"annotator": "namer", "match": False, "k": 2, **settings}
    runtime = swarm.Runtime({"scripted": Logged(log, stop)})
    return swarm.SymbolicMoE(**settings).fit(
        TASK, POOL, store=store, runtime=runtime, progress=Silent()
    )
