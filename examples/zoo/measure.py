"""Measures the zoo on both tasks, with the controls that the figures need; writes figures.json.

python examples/zoo/measure.py            # about five minutes on two cores
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from make_tasks import HERE, RIGHT, SOURCES, TAIL, record
from mixtures import Row
from world import BINARY, EXPERTS, MODULUS, Knowledge, Step

import swarm
from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import AgentGraph, name_agents
from swarm.graphs.topologies import chain, single
from swarm.runtime.evaluate import interval
from swarm.tasks import Task

GRAPHS = 30
"""How many random graphs of a kind."""
MIXTURES = 30
"""How many random mixtures."""
MOVED = (0.55, 0.3, 0.15)
"""Coefficients of a mixture such as a weight-step makes."""


def wide(experts: Sequence[str], reach: int = 3) -> AgentGraph:
    """A chain in which everyone reads the `reach` agents before them."""
    agents = name_agents(list(experts))
    names = [agent.name for agent in agents]
    edges = [(u, v) for i, v in enumerate(names) for u in names[max(0, i - reach) : i]]
    return AgentGraph(agents=agents, edges=tuple(edges))


def random_graphs(successors: int) -> list[AgentGraph]:
    """What a role-step starts with: decoded from uniform random matrices."""
    n = len(RIGHT)
    rng = np.random.default_rng(1)
    matrices = rng.random((GRAPHS, n, n)) * (1 - np.eye(n))
    return decode_swarm(matrices, name_agents(list(RIGHT)), p=0.5, rng=rng, successors=successors)


def with_mixtures(pool: Pool, rows: Mapping[str, Row]) -> Pool:
    """The pool, the base, and mixtures of the pool's experts by their names."""
    mixer = Mixer(pool)
    mixed = [mixer.expert(0, row, name) for name, row in rows.items()]
    return Pool([*pool.values(), *Pool.load(HERE / "base.toml").values(), *mixed], name="measured")


def row_of(**shares: float) -> Row:
    """The coefficients that are not 0, by the names of the experts."""
    return tuple(shares.get(name, 0.0) for name in EXPERTS)


def means() -> dict[str, Row]:
    """Both halves of each source, equally."""
    return {s: row_of(**{f"{s}_lo": 0.5, f"{s}_hi": 0.5}) for s in SOURCES}


def steps_of_a_weight_step() -> dict[str, tuple[list[str], Row]]:
    """Random rows like those after a weight-step, and whom they consist of, the most first."""
    rng = random.Random(0)
    chosen = {}
    while len(chosen) < MIXTURES:
        names = rng.sample(tuple(EXPERTS), 3)
        if EXPERTS[names[0]].skill != EXPERTS[names[1]].skill:
            row = row_of(**dict(zip(names, MOVED, strict=True)))
            chosen[f"moved {len(chosen)}"] = (names, row)
    return chosen


def figure(scores: Sequence[float]) -> dict[str, Any]:
    low, high = interval(scores)
    return {"score": round(statistics.fmean(scores), 3), "ci95": [round(low, 3), round(high, 3)]}


def vote(answers: Sequence[Sequence[str | None]], task: Task, split: str) -> dict[str, Any]:
    """The most frequent last word of the answers, question by question; ties go to the first."""
    scores = []
    for example, given in zip(task.split(split), zip(*answers, strict=True), strict=True):
        said = Counter(answer.split()[-1] for answer in given if answer)
        scores.append(task.scorer(example, said.most_common(1)[0][0]))
    return figure(scores)


def measure(systems: dict[str, AgentGraph], task: Task, pool: Pool, split: str) -> dict[str, Any]:
    found = swarm.evaluate(list(systems.values()), task, pool, split=split)
    for name, evaluation in zip(systems, found, strict=True):
        print(f"{task.name:7} {name:24} {evaluation.score:.3f}", flush=True)
    return dict(zip(systems, found, strict=True))


def measure_relay(pool: Pool, split: str) -> dict[str, Any]:
    task = Task.load(HERE / "relay.toml")
    doubled = [s for s in SOURCES for _ in range(2)]
    controls = {
        "right chain": chain(RIGHT),
        "right chain, halves replaced by their means": chain([*doubled, *TAIL]),
        "right chain, all moved towards gap": chain([*(f"{n} to gap" for n in RIGHT)]),
        "uniform mean of all x 9": chain(["all"] * len(RIGHT)),
        "right chain, reach 3": wide(RIGHT),
        "reversed chain": chain(RIGHT[::-1]),
        "base x 9": chain(["base"] * len(RIGHT)),
        "chain of six, lo": chain([f"{s}_lo" for s in SOURCES] + [*TAIL]),
        "chain of six, hi": chain([f"{s}_hi" for s in SOURCES] + [*TAIL]),
        "chain of six, means": chain([*SOURCES, *TAIL]),
    }
    found = measure(controls, task, pool, split)
    alone = measure({name: single(name) for name in RIGHT}, task, pool, split)
    same = measure({f"{n} x 9": chain([n] * len(RIGHT)) for n in RIGHT}, task, pool, split)
    figures = {name: figure(e.scores) for name, e in found.items()}
    for label, group in (("best expert alone", alone), ("best expert x 9", same)):
        best = max(group, key=lambda name: group[name].score)
        figures[f"{label} ({best})"] = figure(group[best].scores)
    figures["vote of all"] = vote([e.answers for e in alone.values()], task, split)
    by_steps: dict[int, list[float]] = {}
    for example, score in zip(task.split(split), found["right chain"].scores, strict=True):
        by_steps.setdefault(example.meta["steps"], []).append(score)
    figures["right chain"]["by_steps"] = {
        steps: round(statistics.fmean(s), 2) for steps, s in sorted(by_steps.items())
    }
    return figures


def measure_random(pool: Pool, split: str) -> dict[str, Any]:
    task = Task.load(HERE / "relay.toml")
    figures = {}
    for successors in (1, 3):
        graphs = random_graphs(successors)
        scores = [e.score for e in swarm.evaluate(graphs, task, pool, split=split)]
        figures[f"{GRAPHS} random graphs, successors {successors}"] = {
            "mean": round(statistics.fmean(scores), 3),
            "sd": round(statistics.stdev(scores), 3),
            "best": round(max(scores), 3),
        }
    return figures


def measure_skills(pool: Pool, split: str) -> dict[str, Any]:
    task = Task.load(HERE / "skills.toml")
    found = measure({name: single(name) for name in (*RIGHT, "base")}, task, pool, split)
    found |= measure({"right chain": chain(RIGHT)}, task, pool, split)
    figures: dict[str, Any] = {}
    examples = task.split(split)
    for name, evaluation in found.items():
        by_skill: dict[str, list[float]] = {}
        for example, score in zip(examples, evaluation.scores, strict=True):
            by_skill.setdefault(example.meta["skill"], []).append(score)
        shares = {skill: round(statistics.fmean(s), 2) for skill, s in sorted(by_skill.items())}
        figures[name] = figure(evaluation.scores) | {"by_skill": shares}
    figures["vote of all"] = vote([found[name].answers for name in RIGHT], task, split)
    ideal = [max(scores) for scores in zip(*(found[n].scores for n in RIGHT), strict=True)]
    figures["best expert for each question"] = figure(ideal)
    return figures


def table(name: str) -> Task:
    """All single steps that this expert knows and the base does not."""
    skill = EXPERTS[name].skill
    operands = itertools.product(range(MODULUS), repeat=2 if skill in BINARY else 1)
    own = [o for o in operands if EXPERTS[name].owns(skill, o) and not Knowledge().knows(skill, o)]
    records = [record([Step("a", skill, o)], id=f"{name}-{i}") for i, o in enumerate(own)]
    return Task.from_records(f"table of {name}", "number", test=records)


def measure_tables(pool: Pool) -> dict[str, Any]:
    """Shares of the experts' tables that experts and mixtures know."""
    moved = steps_of_a_weight_step()
    pool = with_mixtures(pool, {name: row for name, (_, row) in moved.items()} | means())
    known: dict[str, dict[str, float]] = {name: {} for name in (*RIGHT, *SOURCES)}
    shares: dict[str, list[float]] = {"most": [], "second": []}
    for part in EXPERTS:
        asked = {name: single(name) for name in known}
        for name, (names, _) in moved.items():
            if part in names[:2]:
                asked[name] = single(name)
        for name, evaluation in measure(asked, table(part), pool, "test").items():
            if name in known:
                known[name][part] = round(evaluation.score, 3)
            else:
                which = ("most", "second")[moved[name][0].index(part)]
                shares[which].append(evaluation.score)
    label = "/".join(map(str, MOVED))
    return {
        "known": known,
        f"{MIXTURES} random rows {label}, table of the": {
            which: {"mean": round(statistics.fmean(s), 3), "least": round(min(s), 3)}
            for which, s in shares.items()
        },
    }


def main(split: str) -> None:
    pool = Pool.load(HERE / "pool.toml")
    rows = means() | {"all": (1 / len(EXPERTS),) * len(EXPERTS)}
    for name in RIGHT:
        rows[f"{name} to gap"] = row_of(**{name: 0.6, "gap": 0.4} if name != "gap" else {"gap": 1})
    mixed = with_mixtures(pool, rows)
    figures = {
        "relay": measure_relay(mixed, split) | measure_random(mixed, split),
        "skills": measure_skills(mixed, split),
        "tables": measure_tables(pool),
    }
    print(json.dumps(figures, indent=1))
    if split == "test":
        (HERE / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    main(parser.parse_args().split)
