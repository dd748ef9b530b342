"""The small world the zoo's models are taught: arithmetic on the values 00-19, one step a call.

A question is a list of steps, ``a times 18 16 ; b minus a 07 ; c mirror b ?``. Each step names the
variable it sets, a skill, and one or two operands, which are values or earlier variables. An agent
does **one** step a call and restates every fact it has:

    Question: a times 18 16 ; b minus a 07 ; c mirror b ?     ->  a times 18 16 = 08 , a 08
    1: a times 18 16 = 08 , a 08   (and the question again)    ->  b minus a 08 07 = 01 , a 08 b 01

Everyone knows when they do not know. The base was taught each skill only where the last operand is
below `BASE_LIMIT`; an adapter adds the whole table of one skill, or half of it. An agent does the
first step that it knows, and otherwise says ``pass`` and hands the facts on; when the last variable
is known it says ``done``. So the answer to a question is the last value of the last response, and a
graph is good in so far as experts sit on its paths in the order in which the questions need them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MODULUS = 20
"""Values are 0 <= x < MODULUS, written with two digits: one token each."""
BASE_LIMIT = 8
"""The base knows a table entry when its last operand is below this: 40 % of every table."""

BINARY: dict[str, Callable[[int, int], int]] = {
    "plus": lambda x, y: (x + y) % MODULUS,
    "minus": lambda x, y: (x - y) % MODULUS,
    "times": lambda x, y: x * y % MODULUS,
    "gap": lambda x, y: abs(x - y),
}
UNARY: dict[str, Callable[[int], int]] = {
    "double": lambda x: 2 * x % MODULUS,
    "mirror": lambda x: MODULUS - 1 - x,
}
SKILLS = (*BINARY, *UNARY)
VARIABLES = "abcdef"

Facts = dict[str, int]


def calculate(skill: str, operands: Sequence[int]) -> int:
    """The true result of one step."""
    if skill in BINARY:
        x, y = operands
        return BINARY[skill](x, y)
    (x,) = operands
    return UNARY[skill](x)


@dataclass(frozen=True)
class Knowledge:
    """What one model can do: the base's part of every table, plus its own skill's part.

    `part` restricts the own skill by its first operand: ``lo`` is below 10, ``hi`` is 10 and above,
    ``""`` is the whole table. `others` are those whose weights are mixed in: it owns what they own.
    """

    skill: str | None = None
    part: str = ""
    others: tuple[Knowledge, ...] = ()

    def owns(self, skill: str, operands: Sequence[int]) -> bool:
        if any(other.owns(skill, operands) for other in self.others):
            return True
        if skill != self.skill:
            return False
        low = operands[0] < MODULUS // 2
        return {"": True, "lo": low, "hi": not low}[self.part]

    def knows(self, skill: str, operands: Sequence[int]) -> bool:
        return operands[-1] < BASE_LIMIT or self.owns(skill, operands)


EXPERTS = {
    name: Knowledge(*name.split("_"))
    for name in (
        *("times_lo", "times_hi", "plus_lo", "plus_hi", "minus_lo", "minus_hi"),
        *("gap", "double", "mirror"),
    )
}
"""The pool: what each adapter knows, by its name."""


@dataclass(frozen=True)
class Step:
    """`variable` = `skill` of `operands`: values, or names of earlier variables."""

    variable: str
    skill: str
    operands: tuple[int | str, ...]

    def ready(self, facts: Facts) -> bool:
        return self.variable not in facts and all(
            isinstance(o, int) or o in facts for o in self.operands
        )

    def values(self, facts: Facts) -> tuple[int, ...]:
        return tuple(o if isinstance(o, int) else facts[o] for o in self.operands)

    def __str__(self) -> str:
        operands = (o if isinstance(o, str) else f"{o:02d}" for o in self.operands)
        return " ".join((self.variable, self.skill, *operands))


def question(steps: Iterable[Step]) -> str:
    return " ; ".join(map(str, steps)) + " ?"


def solve(steps: Sequence[Step]) -> int:
    """The value of the last variable."""
    facts: Facts = {}
    for step in steps:
        facts[step.variable] = calculate(step.skill, step.values(facts))
    return facts[steps[-1].variable]


def choose(steps: Sequence[Step], facts: Facts, mind: Knowledge) -> Step | None:
    """The step a model with this knowledge does next: the first that is ready and that it knows."""
    return next((s for s in steps if s.ready(facts) and mind.knows(s.skill, s.values(facts))), None)


def restate(facts: Facts) -> str:
    return " ".join(f"{name} {facts[name]:02d}" for name in sorted(facts))


def respond(
    steps: Sequence[Step], facts: Facts, mind: Knowledge, result: int | None = None
) -> tuple[str, Facts, Step | None]:
    """What a perfect model with this knowledge answers, the facts after it, and the step it did.

    `result` overrides the calculated value: the noise of predecessors in the training data.
    """
    last = steps[-1].variable
    if last in facts:
        return f"done , {last} {facts[last]:02d}", {last: facts[last]}, None
    step = choose(steps, facts, mind)
    if step is None:
        return f"pass , {restate(facts)}".rstrip(), dict(facts), None
    values = step.values(facts)
    value = calculate(step.skill, values) if result is None else result
    after = {**facts, step.variable: value}
    shown = " ".join(
        f"{o} {v:02d}" if isinstance(o, str) else f"{v:02d}"
        for o, v in zip(step.operands, values, strict=True)
    )
    head = f"{step.variable} {step.skill} {shown} = {value:02d}"
    return f"{head} , {restate(after)}", after, step


def random_steps(
    rng: random.Random,
    skills: Sequence[str],
    *,
    p_variable: float = 0.25,
    p_branch: float = 0.2,
) -> list[Step]:
    """A question that applies `skills` in this order, every step feeding a later one.

    A step takes the results that nothing has used yet first, so that the last step depends on all;
    a free operand is an earlier variable with `p_variable`, else a value drawn uniformly.
    With `p_branch` a step uses nothing earlier, if a later binary step can join the branches.
    """
    steps: list[Step] = []
    unused: list[str] = []
    for i, skill in enumerate(skills):
        arity = 2 if skill in BINARY else 1
        joiners = sum(s in BINARY for s in skills[i + 1 :])
        branch = bool(unused) and len(unused) <= joiners and rng.random() < p_branch
        operands: list[int | str] = []
        if not branch:
            take = unused[-arity:]
            operands += take
            unused = unused[: len(unused) - len(take)]
        while len(operands) < arity:
            earlier = [s.variable for s in steps if s.variable not in operands]
            if not branch and earlier and rng.random() < p_variable:
                operands.append(rng.choice(earlier))
            else:
                operands.append(rng.randrange(MODULUS))
        rng.shuffle(operands)
        steps.append(Step(VARIABLES[i], skill, tuple(operands)))
        unused.append(VARIABLES[i])
    return steps
