"""Writes the two tasks of the zoo, always the same from one seed.

    python examples/zoo/make_tasks.py

`relay`: questions of one to five steps. Sources (times, plus, minus) come first, in any order, and
then double, gap and mirror, in this order and never in another, so one graph can serve most of
them: experts for sources first, then `double`, `gap`, `mirror`. The shorter questions need parts
of that order only, which gives graphs that are partly right partial credit. Some questions apply
one source twice in a row: the expert for half its table may have had its turn when that half is
needed, so no chain of the nine experts serves all of these. Experts for whole tables would.

`skills`: a single step, mostly one that the base does not know: the right expert must be found
question by question.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import world
from world import Knowledge, Step

HERE = Path(__file__).parent
SOURCES = ("times", "plus", "minus")
TAIL = ("double", "gap", "mirror")
RIGHT = tuple(f"{skill}_{part}" for skill in SOURCES for part in ("lo", "hi")) + TAIL
"""The experts in an order that serves all of relay."""
LENGTHS = {1: 10, 2: 20, 3: 60, 4: 70, 5: 40}
"""Relay questions of a split by their number of steps."""
SKILL_COUNTS = {"plus": 46, "minus": 46, "times": 46, "gap": 46, "double": 8, "mirror": 8}
HARD = 0.8
"""Share of the skills' questions that the base does not know."""

Composition = tuple[tuple[str, ...], tuple[str, ...]]
"""The sources of a question and the skills that follow them."""


def compositions(length: int) -> list[Composition]:
    """All relay compositions of so many steps, by shape.

    There are none to two sources; two different ones need a gap that joins them.
    """
    if length == 1:
        return [((skill,), ()) for skill in (*SOURCES, "gap")]
    twice = [(skill, skill) for skill in SOURCES]
    return [
        (sources, tail)
        for group in (*(list(itertools.permutations(SOURCES, n)) for n in range(3)), twice)
        for tail in itertools.combinations(TAIL, length - len(group[0]))
        if tail and (len(set(group[0])) < 2 or "gap" in tail)
        for sources in group
    ]


def relay_steps(rng: random.Random, composition: Composition) -> list[Step]:
    """Every skill takes the latest results that nothing has used yet, and values where it can't.

    Sources take values only, except for one that is applied for the second time.
    """
    steps: list[Step] = []
    unused: list[str] = []
    sources, tail = composition
    for i, skill in enumerate((*sources, *tail)):
        arity = 2 if skill in world.BINARY else 1
        takes = arity if i >= len(sources) else sources[:i].count(skill)
        taken = unused[len(unused) - min(takes, len(unused)) :]
        unused = unused[: len(unused) - len(taken)]
        operands: list[int | str] = [*taken]
        operands += [rng.randrange(world.MODULUS) for _ in range(arity - len(taken))]
        rng.shuffle(operands)
        steps.append(Step(world.VARIABLES[i], skill, tuple(operands)))
        unused.append(world.VARIABLES[i])
    return steps


def relay(rng: random.Random, taken: set[str]) -> Iterator[dict[str, Any]]:
    """One split of `relay`; questions in `taken` are avoided and new ones added to it."""
    lengths = [length for length, count in LENGTHS.items() for _ in range(count)]
    rng.shuffle(lengths)
    for length in lengths:
        # By shape first: there are more permutations of two sources than of one.
        shapes = [list(group) for _, group in itertools.groupby(compositions(length), _shape)]
        while True:
            composition = rng.choice(rng.choice(shapes))
            steps = relay_steps(rng, composition)
            if world.question(steps) not in taken:
                break
        taken.add(world.question(steps))
        name = " ".join(itertools.chain(*composition))
        yield record(steps, steps=length, composition=name)


def _shape(composition: Composition) -> tuple[int, int, tuple[str, ...]]:
    sources, tail = composition
    return len(sources), len(set(sources)), tail


def skills(rng: random.Random, taken: set[str]) -> Iterator[dict[str, Any]]:
    """One split of `skills`, like `relay`."""
    chosen = []
    for skill, count in SKILL_COUNTS.items():
        hard = round(HARD * count)
        for known, wanted in ((False, hard), (True, count - hard)):
            table = [step for step in _table(skill, known) if world.question([step]) not in taken]
            chosen += rng.sample(table, wanted)
    rng.shuffle(chosen)
    for step in chosen:
        taken.add(world.question([step]))
        yield record([step], skill=step.skill)


def _table(skill: str, known: bool) -> list[Step]:
    """All questions of one step of this skill that the base knows, or that it does not."""
    arity = 2 if skill in world.BINARY else 1
    return [
        Step("a", skill, operands)
        for operands in itertools.product(range(world.MODULUS), repeat=arity)
        if Knowledge().knows(skill, operands) == known
    ]


def record(asked: list[Step], /, **meta: Any) -> dict[str, Any]:
    return {"question": world.question(asked), "answer": f"{world.solve(asked):02d}", **meta}


def main(out: Path, seed: int) -> None:
    rng = random.Random(seed)
    taken: set[str] = set()
    for name, make in (("relay", relay), ("skills", skills)):
        for split in ("dev", "test"):
            records = [
                {"id": f"{name}-{split}-{i:03d}", **rest}
                for i, rest in enumerate(make(rng, taken), start=1)
            ]
            lines = "".join(json.dumps(r) + "\n" for r in records)
            (out / f"{name}.{split}.jsonl").write_text(lines)
        splits = "".join(f'{split} = "{name}.{split}.jsonl"\n' for split in ("dev", "test"))
        text = f'name = "{name}"\nscorer = "number"\n\n[splits]\n{splits}'
        (out / f"{name}.toml").write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.out, arguments.seed)
