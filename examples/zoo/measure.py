"""Measures the zoo on both tasks, with the controls that the figures need; writes figures.json.

python examples/zoo/measure.py            # about ten minutes on two cores
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from make_tasks import HERE, RIGHT, SOURCES, TAIL
from safetensors.torch import load_file, save_file

import swarm
from swarm.agents.expert import Expert, Pool
from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import AgentGraph, name_agents
from swarm.graphs.topologies import chain, single
from swarm.runtime.evaluate import interval
from swarm.tasks import Task

RANDOM = 30
"""How many random graphs."""


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
    matrices = rng.random((RANDOM, n, n)) * (1 - np.eye(n))
    return decode_swarm(matrices, name_agents(list(RIGHT)), p=0.5, rng=rng, successors=successors)


def mean_adapter(folders: Iterable[Path], out: Path) -> None:
    """The entry-by-entry mean of adapters of one shape, as an adapter folder."""
    folders = list(folders)
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    mean = {k: sum(t[k].float() for t in tensors).div(len(tensors)).half() for k in tensors[0]}
    out.mkdir(parents=True)
    save_file(mean, out / "adapter_model.safetensors", metadata={"format": "pt"})
    (out / "adapter_config.json").write_text((folders[0] / "adapter_config.json").read_text())


def with_merges(pool: Pool, folder: Path) -> Pool:
    """The pool, base and the means of adapters that are measured."""
    merges = {f"{s}_mean": (f"{s}_lo", f"{s}_hi") for s in SOURCES}
    merges |= {"gap_mirror": ("gap", "mirror"), "plus_minus": ("plus_lo", "minus_lo")}
    added: list[Expert] = [*Pool.load(HERE / "base.toml").values()]
    for name, parts in merges.items():
        mean_adapter((Path(str(pool[part].adapter)) for part in parts), folder / name)
        update = {"name": name, "adapter": str(folder / name)}
        added.append(pool[parts[0]].model_copy(update=update))
    return Pool([*pool.values(), *added], name="measured")


def figure(scores: Sequence[float]) -> dict[str, Any]:
    low, high = interval(scores)
    return {"score": round(statistics.fmean(scores), 3), "ci95": [round(low, 3), round(high, 3)]}


def vote(answers: Sequence[Sequence[str | None]], task: Task) -> dict[str, Any]:
    """The most frequent last word of the answers, question by question; ties go to the first."""
    scores = []
    for example, given in zip(task.split("test"), zip(*answers, strict=True), strict=True):
        said = Counter(answer.split()[-1] for answer in given if answer)
        scores.append(task.scorer(example, said.most_common(1)[0][0]))
    return figure(scores)


def measure(systems: dict[str, AgentGraph], task: Task, pool: Pool) -> dict[str, Any]:
    found = swarm.evaluate(list(systems.values()), task, pool)
    for name, evaluation in zip(systems, found, strict=True):
        print(f"{task.name:7} {name:24} {evaluation.score:.3f}", flush=True)
    return dict(zip(systems, found, strict=True))


def measure_relay(pool: Pool) -> dict[str, Any]:
    task = Task.load(HERE / "relay.toml")
    controls = {
        "right chain": chain(RIGHT),
        "right chain, reach 3": wide(RIGHT),
        "reversed chain": chain(RIGHT[::-1]),
        "base x 9": chain(["base"] * len(RIGHT)),
        "gap_mirror in the chain": chain([*RIGHT[:-2], "gap_mirror", "gap_mirror"]),
        **{
            f"{p} in the chain": chain([f"{s}_{p}" for s in SOURCES] + [*TAIL])
            for p in ("lo", "hi", "mean")
        },
    }
    found = measure(controls, task, pool)
    alone = measure({name: single(name) for name in RIGHT}, task, pool)
    same = measure({f"{name} x 9": chain([name] * len(RIGHT)) for name in RIGHT}, task, pool)
    figures = {name: figure(e.scores) for name, e in found.items()}
    for label, group in (("best expert alone", alone), ("best expert x 9", same)):
        best = max(group, key=lambda name: group[name].score)
        figures[f"{label} ({best})"] = figure(group[best].scores)
    figures["vote of all"] = vote([e.answers for e in alone.values()], task)
    for successors in (1, 3):
        scores = [e.score for e in swarm.evaluate(random_graphs(successors), task, pool)]
        figures[f"{RANDOM} random graphs, successors {successors}"] = {
            "mean": round(statistics.fmean(scores), 3),
            "sd": round(statistics.stdev(scores), 3),
            "best": round(max(scores), 3),
        }
    return figures


def measure_skills(pool: Pool) -> dict[str, Any]:
    task = Task.load(HERE / "skills.toml")
    found = measure({name: single(name) for name in pool}, task, pool)
    found |= measure({"right chain": chain(RIGHT)}, task, pool)
    figures: dict[str, Any] = {}
    examples = task.split("test")
    for name, evaluation in found.items():
        by_skill: dict[str, list[float]] = {}
        for example, score in zip(examples, evaluation.scores, strict=True):
            by_skill.setdefault(example.meta["skill"], []).append(score)
        shares = {skill: round(statistics.fmean(s), 2) for skill, s in sorted(by_skill.items())}
        figures[name] = figure(evaluation.scores) | {"by_skill": shares}
    figures["vote of all"] = vote([found[name].answers for name in RIGHT], task)
    ideal = [max(scores) for scores in zip(*(found[n].scores for n in RIGHT), strict=True)]
    figures["best expert for each question"] = figure(ideal)
    return figures


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pool = with_merges(Pool.load(HERE / "pool.toml"), Path(folder))
        figures = {"relay": measure_relay(pool), "skills": measure_skills(pool)}
    (HERE / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
