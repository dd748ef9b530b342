"""Loads of 16 models with room for 1, 2 and 4: ours, a load a node and graph, a load a question.

    python benchmarks/residency.py --out benchmarks/results/residency.json

Ten random graphs of 16 agents, each of a model of its own, decoded as a search decodes them, over
200 questions. The models are real and loaded from disk: the zoo's base with noise, sixteen times
(16 × 3 MB: too small for seconds to say much about GPUs; loads are what is counted).

- ours: all graphs together, within the room; loads, bytes and seconds are those in the store.
- node by node: one graph after the other, each node's model loaded for all questions. As the graphs
  have 160 nodes and there are 16 models, no schedule whatever can save more than 10 times of that.
- question by question: one question after the other through one graph after the other. Counted;
  seconds are scaled up from `--sample` questions.

`loads_over_lower_bound` compares with a bound that holds for every schedule, whatever its order and
batches (`_loads_bound.py` says how it is found and why it holds). `loads_saved` is node by node
over ours, `loads_saved_per_question` question by question over ours.

"waves" is what it was before there was a plan:
every base that a step of LangGraph wants, loaded once (counted, not run).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _loads_bound import lower_bound
from _models import ZOO, perturbed
from _table import arguments, report

import swarm
from swarm.agents.memory import Room
from swarm.graphs.decode import decode
from swarm.runtime.agenda import Agenda, Item
from swarm.runtime.planning import LONG, Model, plan
from swarm.store.loads import Loads, loads

MODELS, GRAPHS, ROOMS = 16, 10, (1, 2, 4)
SUBSET = {1: 8, 2: 8, 4: 10}
"""Bases of a subset for the bound: with more room only larger ones have extra loads at all."""


def random_graphs(names: list[str], seed: int) -> list[swarm.AgentGraph]:
    rng = np.random.default_rng(seed)
    n = len(names)
    return [decode(rng.random((n, n)), names, p=0.8, rng=rng) for _ in range(GRAPHS)]


def run(
    graphs: list[swarm.AgentGraph], task: swarm.Task, pool: swarm.Pool, room: int, limit: int
) -> tuple[Loads, float, list[Any]]:
    """What loading took, all seconds, and the answers."""
    with tempfile.TemporaryDirectory() as folder, swarm.Store.open(f"{folder}/x.db") as store:
        runtime = swarm.Runtime(memory=room)
        started = time.perf_counter()
        found = swarm.evaluate(
            graphs, task, pool, split="test", limit=limit, store=store, runtime=runtime
        )
        seconds = time.perf_counter() - started
        runtime.close()
        assert found[0].run is not None
        assert not any(evaluation.errors for evaluation in found)
        return (
            loads(store.batches(found[0].run)),
            seconds,
            [evaluation.answers for evaluation in found],
        )


def in_turn(
    graphs: list[swarm.AgentGraph], task: swarm.Task, pool: swarm.Pool, limit: int
) -> tuple[list[Loads], float, list[Any]]:
    """One graph after the other; every agent has a model of its own, so each node is one load."""
    parts = [run([graph], task, pool, 1, limit) for graph in graphs]
    return (
        [taken for taken, _, _ in parts],
        sum(s for _, s, _ in parts),
        [a for *_, [a] in parts],
    )


def planning_ms(graphs: list[swarm.AgentGraph], pool: swarm.Pool, room: int) -> float:
    """Milliseconds of planning for each load."""
    agendas = []
    for graph in graphs:
        place = {agent.name: k for k, agent in enumerate(graph.agents)}
        agendas.append(
            Agenda(
                [
                    Item(pool[a.expert], tuple(place[p.name] for p in graph.predecessors(a.name)))
                    for a in graph.agents
                ]
            )
        )
    models = {expert.base: Model(size=LONG) for expert in pool.values()}
    started = time.perf_counter()
    steps = plan([(agenda, 0) for agenda in agendas], [], models, {"": Room(models=room)})
    return 1e3 * (time.perf_counter() - started) / len(steps)


def in_waves(graphs: list[swarm.AgentGraph], room: int) -> int:
    """Loads where each step of all graphs waits for the one before, and the oldest is evicted."""
    used: list[str] = []
    count = 0
    for step in range(max(graph.depth for graph in graphs)):
        bases = {a.expert for g in graphs if step < g.depth for a in g.waves[step]}
        for base in sorted(bases, key=lambda base: (base not in used, base)):
            count += base not in used
            used = [*(other for other in used if other != base), base][-room:]
    return count


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--sample", type=int, default=2, help="question by question: so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subsets", type=int, default=24, help="more: a tighter bound")
    parser.add_argument("--states", type=int, default=100_000, help="more: a tighter bound")
    options = parser.parse_args()
    task = swarm.Task.load(ZOO / "relay.toml")
    n = options.questions
    headline: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []

    def row(
        what: str, room: int, count: int, taken: Loads | None, seconds: float, **more: Any
    ) -> None:
        rows.append(
            {
                "what": what,
                "room": room,
                "loads": count,
                "mb": 0.0 if taken is None else taken.load_bytes / 1e6,
                "load_seconds": 0.0 if taken is None else taken.load_seconds,
                "seconds": seconds,
                **more,
            }
        )

    with tempfile.TemporaryDirectory() as folder:
        places = perturbed(Path(folder), MODELS)
        pool = swarm.Pool(
            swarm.Expert(
                name=place.name,
                model=str(place),
                prompt="compact",
                sampling=swarm.Sampling(max_tokens=3),
            )
            for place in places
        )
        graphs = random_graphs(list(pool), options.seed)
        run(graphs[:1], task, pool, 1, 2)  # imports and page cache, for all alike
        parts, node_seconds, expected = in_turn(graphs, task, pool, n)
        node = _sum(parts)
        assert node.loads == GRAPHS * MODELS
        for room in ROOMS:
            bound, exact = lower_bound(
                graphs, room, subsets=options.subsets, size=SUBSET[room], states=options.states
            )
            taken, seconds, answers = run(graphs, task, pool, room, n)
            assert answers == expected, "the same answers whatever the room"
            over = {"lower_bound": bound, "over_bound": taken.loads / bound}
            ms = planning_ms(graphs, pool, room)
            more = {"exhaustive_subsets": exact, "plan_ms_per_load": ms}
            row("ours", room, taken.loads, taken, seconds, **over, **more)
            headline[f"loads_over_lower_bound_{room}"] = taken.loads / bound
            headline[f"loads_saved_{room}"] = node.loads / taken.loads
            headline[f"loads_saved_per_question_{room}"] = n * node.loads / taken.loads
            row("waves (counted)", room, in_waves(graphs, room), None, 0.0, lower_bound=bound)
        row("node by node", 1, node.loads, node, node_seconds)
        parts, sampled, _ = in_turn(graphs, task, pool, 1)
        for number in range(1, options.sample):
            again, more, _ = in_turn(graphs, _question(task, number), pool, 1)
            parts, sampled = [*parts, *again], sampled + more
        each = _sum(parts)
        scale = n / options.sample
        rows.append(
            {
                "what": f"question by question (scaled from {options.sample})",
                "room": 1,
                "loads": round(each.loads * scale),
                "mb": each.load_bytes * scale / 1e6,
                "load_seconds": each.load_seconds * scale,
                "seconds": sampled * scale,
            }
        )
    headline |= {
        "questions": n,
        "graphs": GRAPHS,
        "models": MODELS,
        "measured_on": "two shared CPU cores, models of 0.8 million parameters; not a GPU",
    }
    report(headline, rows, options)


def _sum(parts: list[Loads]) -> Loads:
    return Loads(
        *(sum(values) for values in zip(*(vars(part).values() for part in parts), strict=True))
    )


def _question(task: swarm.Task, number: int) -> swarm.Task:
    """The task with one question only."""
    example = task.test[number]
    record = {"question": example.question, "answer": example.answer}
    return swarm.Task.from_records(task.name, lambda example, text: 0.0, test=[record])


if __name__ == "__main__":
    main()
