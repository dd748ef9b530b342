"""Perfect agents of the zoo's world (examples/zoo/world.py): what its models would be without
mistakes. A whole search with them takes seconds, so that many can be compared."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import swarm
from swarm.agents.messages import Messages

ZOO = Path(__file__).parent.parent / "examples" / "zoo"
sys.path.insert(0, str(ZOO))
import world  # noqa: E402


@functools.cache
def read_question(text: str) -> tuple[world.Step, ...]:
    steps = []
    for part in text.removesuffix(" ?").split(" ; "):
        variable, skill, *operands = part.split()
        values = tuple(int(o) if o.isdigit() else o for o in operands)
        steps.append(world.Step(variable, skill, values))
    return tuple(steps)


def read_facts(response: str) -> world.Facts:
    words = response.partition(", ")[2].split()
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def perfect(mind: world.Knowledge, messages: Messages) -> str:
    """What a model without mistakes answers to a prompt in the zoo's form."""
    *told, question, _ = messages[-1].content.split("\n")
    facts: world.Facts = {}
    for line in told:
        facts |= read_facts(line.partition(": ")[2])
    return world.respond(read_question(question.removeprefix("Question: ")), facts, mind)[0]


def pool() -> swarm.Pool:
    return swarm.Pool(
        swarm.Expert.scripted(name, functools.partial(perfect, mind), prompt="compact")
        for name, mind in world.EXPERTS.items()
    )
