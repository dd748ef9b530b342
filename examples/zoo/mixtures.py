"""Training data for mixtures of experts' weights: a row of coefficients, and what it shall know.

The rows are like those that the weight-step of Heterogeneous Swarms asks: it begins with the
experts themselves and moves each towards others, with a total of one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import lessons
import world
from lessons import Lesson
from world import Facts, Knowledge, Step

PRESENT = 0.25
"""From this coefficient on a mixture knows all that the expert knows."""
ABSENT = 0.1
"""Up to this one it knows nothing of it. What lies between is not taught."""
OWN = 0.5
"""Share of lessons that do a step which the base does not know."""

Row = tuple[float, ...]
"""A coefficient for each of `world.EXPERTS`, in their order."""

NAMES = tuple(world.EXPERTS)
HALVES = tuple((name, name[:-2] + "hi") for name in NAMES if name.endswith("_lo"))


def draw_row(rng: random.Random) -> Row:
    """An expert alone, two halves of a skill, or any two to four experts; the total is one.

    At least one is present.
    """
    kind = rng.random()
    if kind < 0.4:
        names, shares = [rng.choice(NAMES)], [1.0]
    elif kind < 0.6:
        share = rng.uniform(PRESENT, 1 - PRESENT)
        names, shares = list(rng.choice(HALVES)), [share, 1 - share]
    else:
        names = rng.sample(NAMES, rng.choices((2, 3, 4), (6, 3, 1))[0])
        weights = [rng.gammavariate(2.0, 1.0) for _ in names]
        shares = [weight / sum(weights) for weight in weights]
    row = dict.fromkeys(NAMES, 0.0) | dict(zip(names, shares, strict=True))
    if rng.random() < 0.5:
        # A weight-step moves a little away from the worst: below zero, and above one elsewhere.
        away, moved = rng.choice(NAMES), rng.uniform(-ABSENT, ABSENT)
        row = {name: (1 + moved) * c for name, c in row.items()}
        row[away] -= moved
    return tuple(row.values()) if max(row.values()) >= PRESENT else draw_row(rng)


def knowledge(minds: Sequence[Knowledge], row: Row, least: float) -> Knowledge:
    """What those with a coefficient of at least `least` know together."""
    return Knowledge(others=tuple(m for m, c in zip(minds, row, strict=True) if c >= least))


def mixture_lesson(
    rng: random.Random, minds: Sequence[Knowledge], row: Row, *, longest: int = 5
) -> Lesson:
    """A lesson for the mixture of models with the knowledge `minds` by the coefficients `row`.

    With `OWN` a step that one of them adds to the base; else anything at all. No lesson depends on
    one whose coefficient is between `ABSENT` and `PRESENT`.
    """
    mind, unsure = knowledge(minds, row, PRESENT), knowledge(minds, row, ABSENT)
    focus = rng.choice(mind.others)
    often = (*world.SKILLS, *[str(focus.skill)] * 4)

    def new(step: Step | None, facts: Facts) -> bool:
        if step is None:
            return False
        values = step.values(facts)
        return focus.owns(step.skill, values) and not Knowledge().knows(step.skill, values)

    if rng.random() < OWN:
        return lessons.lesson(
            rng, mind, longest=longest, skills=often, accept=new, unsure=unsure, row=row
        )
    # Its skill comes often here too: an expert has to tell its part of the table from the rest.
    skills = rng.choice((world.SKILLS, often))
    return lessons.lesson(rng, mind, longest=longest, skills=skills, unsure=unsure, row=row)
