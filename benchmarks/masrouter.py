"""MasRouter on the zoo: what it scores and costs along λ, beside every mode played the same way.

    python benchmarks/masrouter.py --out benchmarks/results/masrouter.json

The zoo's trained models (two hours on a core, less where `--store` knows answers) or, with
`--perfect`, agents of its world that make no mistakes (minutes). Fitted on dev of skills and relay,
measured on test. Every expert is given a price of 1 USD per million tokens; costs are USD a
thousand questions, as if nothing had been known.
The zoo's prompts are compact: roles are not in them, so `io` and `cot` are the same there, and
roles decide nothing but which models a question gets. What MasRouter does beyond the paper was
chosen with perfect agents on questions of other seeds (`make_tasks.py --seed`).

A fixed mode has, of all its candidates, the one with the best score on the same dev questions (the
cheapest of several): `--sizes` agents, played by the best single expert, or by experts that are
drawn uniformly for each question. It is dominated by a point that scores as much or more and costs
less, or scores more and costs no more: `dominated` names these points.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from _perfect import ZOO
from _perfect import pool as perfect_agents
from _table import arguments, report

import swarm
from swarm.agents.expert import Price
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import single
from swarm.optimizers.masrouter.modes import MODES, mode_graph
from swarm.optimizers.masrouter.optimizer import costs_of
from swarm.runtime.cache import MemoryCache
from swarm.runtime.evaluate import Evaluator
from swarm.runtime.progress import Silent

LAMBDAS = tuple(500.0 * k for k in range(11))
"""Score that a USD takes off; a call takes about 0.00001 USD in skills, and 0.00005 in relay."""
BESIDE = ("anew", "published")
"""Beside `ours`, in which each λ goes on from the last (`MasRouter.front`): every second λ by
itself, and that as published."""
DRAWS = "drawn uniformly"
Measured = tuple[float, float]
"""Score, and USD a thousand questions."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=["skills", "relay"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--published-seeds", type=int, default=1)
    parser.add_argument("--questions", type=int, default=200, help="of dev")
    parser.add_argument("--test", type=int, default=200, help="questions of test")
    parser.add_argument("--beside", nargs="*", choices=BESIDE, default=list(BESIDE))
    parser.add_argument("--lambdas", type=float, nargs="*", default=list(LAMBDAS))
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 4, 6], help="fixed modes'")
    parser.add_argument(
        "--perfect",
        action="store_true",
        help="agents in place of the models",
    )
    parser.add_argument("--store", default="sqlite://")
    options = parser.parse_args()
    models = _priced(swarm.Pool.load(ZOO / "pool.toml"), {})
    told = {name: expert.description for name, expert in models.items()}
    pool = _priced(perfect_agents(), told) if options.perfect else models
    runtime = swarm.Runtime()
    headline: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    with swarm.Store.open(options.store) as store:
        for name in options.tasks:
            task = swarm.Task.load(ZOO / f"{name}.toml")
            found, more = _on(task, pool, runtime, store, options)
            rows += more
            for key, value in found.items():
                headline.setdefault(key, {})[name] = value
    size = {k: getattr(options, k) for k in ("seeds", "questions", "test")}
    report(
        {**headline, **size, "perfect": options.perfect, "measured_on": "two shared CPU cores"},
        rows,
        options,
    )


def _on(
    task: swarm.Task, pool: swarm.Pool, runtime: swarm.Runtime, store: swarm.Store, options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a task adds to the headline, and its rows."""
    fixed = _fixed_modes(task, pool, runtime, options)
    modes = {mode: (score, cost) for mode, (score, cost, _) in fixed.items()}
    points = {
        variant: _points(task, pool, runtime, store, options, variant)
        for variant in ("ours", *options.beside)
    }
    ours = points["ours"]
    dominated = {
        mode: [point["how"] for point in ours if _beats((point["score"], point["cost"]), measured)]
        for mode, measured in modes.items()
    }
    found = {
        "masrouter_front": _measured(ours),
        **{f"{name}_front": _measured(found) for name, found in points.items() if name != "ours"},
        "fixed_modes": modes,
        "at_zero": {
            "masrouter": ours[0]["score"],
            "best_fixed": max(score for score, _ in modes.values()),
        },
        "dominated": dominated,
        "one_point_dominates_all": bool(set.intersection(*map(set, dominated.values()))),
    }
    rows = [
        {"task": task.name, "system": mode, "how": how, "score": score, "cost": cost}
        for mode, (score, cost, how) in fixed.items()
    ]
    return found, [*rows, *chain.from_iterable(points.values())]


def _measured(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    return [(point["how"], point["score"], point["cost"]) for point in points]


def _priced(pool: swarm.Pool, told: Mapping[str, str]) -> swarm.Pool:
    """With 1 USD per million tokens each, and with these descriptions."""
    price = Price(input=1.0, output=1.0)
    return swarm.Pool(
        [
            each.model_copy(
                update={"price": price, "description": told.get(name, each.description)}
            )
            for name, each in pool.items()
        ],
        name="zoo",
    )


def _beats(a: Measured, b: Measured) -> bool:
    return (a[0] >= b[0] and a[1] < b[1]) or (a[0] > b[0] and a[1] <= b[1])


def _said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _points(
    task: swarm.Task,
    pool: swarm.Pool,
    runtime: swarm.Runtime,
    store: swarm.Store,
    options: Any,
    variant: str,
) -> list[dict[str, Any]]:
    """For each λ, means over seeds of score, USD a thousand questions and calls a question."""
    lambdas = options.lambdas if variant == "ours" else options.lambdas[::2]
    found: dict[float, list[tuple[float, float, float]]] = {lam: [] for lam in lambdas}
    how = {
        "limit": options.questions,
        "store": store,
        "runtime": runtime,
        "progress": Silent(),
    }
    for seed in range(options.published_seeds if variant == "published" else options.seeds):
        router = swarm.MasRouter(
            seed=seed,
            max_agents=max(options.sizes),
            measure=False,
            reference=variant == "published",
        )
        # Each λ alone is a front of one.
        for run in [lambdas] if variant == "ours" else [[lam] for lam in lambdas]:
            started = time.perf_counter()
            for lam, best in router.front(run, task, pool, **how).items():
                summary = best.evaluate(task, "test", limit=options.test, store=store).summary()
                n = summary.questions
                score, cost, calls = summary.score, 1000 * summary.cost / n, summary.calls / n
                found[lam].append((score, cost, calls))
                _said(
                    f"{task.name}, {variant}, λ {lam:g}, seed {seed}: "
                    f"{score:.3f}, {cost:.4f}, {calls:.1f} calls"
                )
            _said(f"  {time.perf_counter() - started:.0f} s")
    return [_point(task.name, variant, lam, measured) for lam, measured in found.items()]


def _point(
    task: str, variant: str, lam: float, measured: Sequence[tuple[float, float, float]]
) -> dict[str, Any]:
    score, cost, calls = (statistics.mean(column) for column in zip(*measured, strict=True))
    return {
        "task": task,
        "system": f"MasRouter, {variant}",
        "how": f"λ {lam:g}",
        "score": score,
        "cost": cost,
        "calls": calls,
        "by_seed": " ".join(f"{s:.3f}/{c:.3f}" for s, c, _ in measured),
    }


def _candidates(
    pool: swarm.Pool, mode: str, best: str, n: int, questions: int
) -> dict[str, list[AgentGraph]]:
    """How a mode may be played by n agents: a graph for each question."""
    rng = np.random.default_rng(n)
    names = list(pool)

    def graph(experts: list[str]) -> AgentGraph:
        return mode_graph(MODES[mode], experts, ["solver"] * n)

    return {
        f"{n} × {best}": [graph([best] * n)] * questions,
        f"{n} {DRAWS}": [
            graph([names[i] for i in rng.integers(len(names), size=n)]) for _ in range(questions)
        ],
    }


def _fixed_modes(
    task: swarm.Task, pool: swarm.Pool, runtime: swarm.Runtime, options: Any
) -> dict[str, tuple[float, float, str]]:
    """Mode → score and cost on test of its best candidate on dev, and which that is."""

    def measure(split: str, limit: int, systems: list[list[AgentGraph]]) -> list[Measured]:
        return _measure(task, split, limit, pool, runtime, memory, systems)

    n, memory = options.questions, MemoryCache()
    alone = measure("dev", n, [[single(name)] * n for name in pool])
    best = list(pool)[max(range(len(alone)), key=lambda i: alone[i][0])]
    found = {}
    for mode in MODES:
        if mode == "cot":  # roles are not in the zoo's prompts: it asks the same as `io`
            found[mode] = found["io"]
            continue
        dev: dict[str, list[AgentGraph]] = {}
        test: dict[str, list[AgentGraph]] = {}
        for size in options.sizes:
            dev |= _candidates(pool, mode, best, size, n)
            test |= _candidates(pool, mode, best, size, options.test)
        scored = dict(zip(dev, measure("dev", n, list(dev.values())), strict=True))
        chosen = max(scored, key=lambda how: (scored[how][0], -scored[how][1]))
        [(score, cost)] = measure("test", options.test, [test[chosen]])
        found[mode] = (score, cost, chosen)
        _said(f"{task.name} {mode}: {chosen}: {score:.3f}, {cost:.4f}")
    return found


def _measure(
    task: swarm.Task,
    split: str,
    limit: int,
    pool: swarm.Pool,
    runtime: swarm.Runtime,
    memory: MemoryCache,
    systems: list[list[AgentGraph]],
) -> list[Measured]:
    """Of systems that each have a graph for every question."""

    async def run() -> list[Measured]:
        evaluator = Evaluator(task, split, pool, runtime.scheduler(memory), limit=limit)
        work: dict[AgentGraph, dict[int, None]] = {}
        for graphs in systems:
            for row, graph in enumerate(graphs):
                work.setdefault(graph, {})[row] = None
        known: dict[tuple[AgentGraph, int], Measured] = {}
        for each in await evaluator.each([(graph, list(rows)) for graph, rows in work.items()]):
            for row, score, cost in zip(each.rows, each.scores, costs_of(each, "usd"), strict=True):
                known[each.graph, row] = score, cost
        found = []
        for graphs in systems:
            both = [known[graph, row] for row, graph in enumerate(graphs)]
            found.append(
                (statistics.mean(s for s, _ in both), 1000 * statistics.mean(c for _, c in both))
            )
        return found

    return asyncio.run(run())


if __name__ == "__main__":
    main()
