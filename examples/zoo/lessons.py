"""Training data for the zoo: prompts with random predecessors, and what a perfect agent answers.

The prompts are made by the same code that prompts the agents of a graph (`swarm.agents.prompt`), so
that training and use cannot drift apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import world
from world import Facts, Knowledge, Step

from swarm.agents.prompt import COMPACT, Position

IGNORE = -100
NOISE = 0.10
"""Share of predecessors' steps with a wrong result: agents copy what they are told, unchecked."""
PREDECESSORS = (14, 30, 18, 14, 9, 6, 4, 3, 2)
"""Weights of 0 to 8 predecessors."""


@dataclass(frozen=True)
class Lesson:
    """One training example; `graded` are the results of predecessors worth learning from.

    `graded[i]` says whether the value after ``=`` in previous response i is right and within the
    knowledge of the model that is being taught.
    """

    prompt: str
    reply: str
    done: Step | None
    graded: tuple[bool, ...]
    row: tuple[float, ...] = ()
    """Coefficients of the adapters that are taught; none for the base."""


def predecessor(
    rng: random.Random, steps: list[Step], rounds: int, mind: Knowledge
) -> tuple[str, Facts, bool]:
    """The last response of a chain of `rounds` agents, its facts, and if it is worth learning."""
    facts: Facts = {}
    text, graded = "pass ,", False
    for _ in range(rounds):
        # Mostly agents who can do what comes next, or chains would stall at the first hard step.
        able = [s for s in steps if s.ready(facts)]
        peer = Knowledge(rng.choice(able).skill if able and rng.random() < 0.85 else None)
        wrong = rng.random() < NOISE
        before = facts
        text, facts, step = world.respond(
            steps, facts, peer, rng.randrange(world.MODULUS) if wrong else None
        )
        graded = step is not None and not wrong and mind.knows(step.skill, step.values(before))
    return text, facts, graded


def lesson(
    rng: random.Random,
    mind: Knowledge,
    *,
    longest: int = 5,
    skills: tuple[str, ...] = world.SKILLS,
    accept: Callable[[Step | None, Facts], bool] = lambda step, facts: True,
    unsure: Knowledge | None = None,
    row: tuple[float, ...] = (),
) -> Lesson:
    """One lesson for a model that shall know what `mind` knows.

    The question's skills are drawn from `skills` with replacement; `accept` sees the step that the
    lesson would teach, with the facts before it, and may ask for another. No lesson is given that
    a model with the knowledge `unsure` would answer otherwise. `row` is noted on the lesson.
    """
    while True:
        # Long questions and branches are where operands are looked up in the wrong place.
        k = max(rng.randint(1, longest), rng.randint(1, longest))
        p_branch = rng.choice((0.1, 0.6, 1.0))
        steps = world.random_steps(rng, rng.choices(skills, k=k), p_branch=p_branch)
        n = rng.choices(range(9), PREDECESSORS)[0]
        if k == 1 and rng.random() < 0.6:
            n = 0
        previous, graded = [], []
        facts: Facts = {}
        for _ in range(n):
            rounds = rng.randint(0 if rng.random() < 0.1 else 1, k + 2)
            text, added, good = predecessor(rng, steps, rounds, mind)
            previous.append(text)
            graded.append(good)
            facts.update(added)  # with conflicting facts the last predecessor wins
        reply, _, step = world.respond(steps, facts, mind)
        # `done` and `pass` are learned fast: seeing them too often only costs time.
        if step is None and rng.random() < (0.8 if reply.startswith("done") else 0.35):
            continue
        if not accept(step, facts):
            continue
        if unsure is not None and world.respond(steps, facts, unsure)[0] != reply:
            continue
        position = Position.FIRST if not previous else rng.choice((Position.MIDDLE, Position.LAST))
        prompt = COMPACT.render(world.question(steps), tuple(previous), position)
        return Lesson(prompt, reply, step, tuple(graded), row)


@dataclass(frozen=True)
class Tokens:
    """`inputs` and `labels` of one lesson; a label of `IGNORE` is not trained on."""

    inputs: list[int]
    labels: list[int]
    row: tuple[float, ...]


def encode(item: Lesson, vocabulary: dict[str, int]) -> Tokens:
    prompt = [vocabulary[w] for w in item.prompt.split()]
    reply = [vocabulary[w] for w in item.reply.split()] + [vocabulary["<eos>"]]
    inputs = [vocabulary["<bos>"], *prompt, *reply]
    labels = [IGNORE] * (1 + len(prompt)) + reply
    which = -1
    for i, word in enumerate(item.prompt.split(), start=1):
        if word.endswith(":") and word[0].isdigit():
            which += 1
        elif word == "=" and item.graded[which]:
            labels[i + 1] = inputs[i + 1]
    return Tokens(inputs, labels, item.row)


def batches(
    draw: Callable[[], Lesson],
    vocabulary: dict[str, int],
    size: int,
    rng: random.Random,
    window: int = 8,
) -> Iterator[list[Tokens]]:
    """Endless batches of lessons of similar length."""
    while True:
        drawn = [encode(draw(), vocabulary) for _ in range(size * window)]
        drawn.sort(key=lambda t: len(t.inputs))
        groups = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        rng.shuffle(groups)
        yield from groups
