"""MasRouter on the zoo: what it scores and costs along λ, beside every mode played the same way.

    python benchmarks/masrouter.py --out benchmarks/results/masrouter.json

The zoo's trained models (an hour on two cores) or, with `--perfect`, agents of its world that make
no mistakes (minutes). Fitted on dev of skills and relay, measured on test. Every expert is given a
price of 1 USD per million tokens; costs are USD a thousand questions, as if nothing had been known.
The zoo's prompts are compact: roles are not in them, so `io` and `cot` are the same there, and
roles decide nothing but which models a question gets. What MasRouter does beyond the paper was
chosen with perfect agents on questions of other seeds (`make_tasks.py --seed`).

A fixed mode has, of all its candidates, the one with the best score on the same dev questions (the
cheapest of several): `--sizes` agents, played by the best single expert, or by experts that are
drawn uniformly for each question. It is dominated if a point of the front scores as much or more
and costs less, or scores more and costs no more. `masrouter_dominates`: in each task, one point
dominates every fixed mode.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Mapping
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

LAMBDAS = (0.0, 500.0, 1000.0, 1500.0, 3000.0)
"""Score that a USD takes off; a call takes about 0.00001 USD in skills, and 0.00005 in relay."""
DRAWS = "drawn uniformly"
Measured = tuple[float, float]
"""Score, and USD a thousand questions."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=["skills", "relay"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--published-seeds", type=int, default=1)
    parser.add_argument("--questions", type=int, default=200, help="of dev")
    parser.add_argument("--test", type=int, default=200, help="questions of test")
    parser.add_argument("--epochs", type=int, default=5)
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
    headline: dict[str, Any] = {"masrouter_front": {}, "fixed_modes": {}}
    rows: list[dict[str, Any]] = []
    dominates: list[bool] = []
    at_zero: dict[str, Any] = {}
    with swarm.Store.open(options.store) as store:
        for name in options.tasks:
            task = swarm.Task.load(ZOO / f"{name}.toml")
            fixed = _fixed_modes(task, pool, runtime, options)
            headline["fixed_modes"][name] = {mode: best[:2] for mode, best in fixed.items()}
            for mode, (score, cost, how) in fixed.items():
                rows.append(
                    {"task": name, "system": mode, "how": how, "score": score, "cost": cost}
                )
            fronts: dict[str, list[tuple[float, float, float]]] = {}
            for variant in ("ours", "published"):
                fronts[variant] = []
                for lam in options.lambdas:
                    seeds = options.seeds if variant == "ours" else options.published_seeds
                    found = [
                        _fit(task, pool, runtime, store, options, variant, lam, seed)
                        for seed in range(seeds)
                    ]
                    score = statistics.mean(s for s, _, _ in found)
                    cost = statistics.mean(c for _, c, _ in found)
                    fronts[variant].append((lam, score, cost))
                    rows.append(
                        {
                            "task": name,
                            "system": f"MasRouter, {variant}",
                            "how": f"λ {lam:g}",
                            "score": score,
                            "cost": cost,
                            "calls": statistics.mean(n for _, _, n in found),
                            "by_seed": " ".join(f"{s:.3f}/{c:.3f}" for s, c, _ in found),
                        }
                    )
            headline["masrouter_front"][name] = fronts["ours"]
            headline.setdefault("published_front", {})[name] = fronts["published"]
            best = max(score for score, _, _ in fixed.values())
            at_zero[name] = {"masrouter": fronts["ours"][0][1], "best_fixed": best}
            beaten = {
                mode: any(_beats((s, c), (score, cost)) for _, s, c in fronts["ours"])
                for mode, (score, cost, _) in fixed.items()
            }
            one = any(
                all(_beats((s, c), (score, cost)) for score, cost, _ in fixed.values())
                for _, s, c in fronts["ours"]
            )
            headline.setdefault("dominated", {})[name] = beaten
            headline.setdefault("one_point_dominates_all", {})[name] = one
            dominates.append(one)
    headline["masrouter_dominates"] = all(dominates)
    headline["at_zero"] = at_zero
    size = {k: getattr(options, k) for k in ("seeds", "questions", "test", "epochs")}
    report(
        {**headline, **size, "perfect": options.perfect, "measured_on": "two shared CPU cores"},
        rows,
        options,
    )


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


def _fit(
    task: swarm.Task,
    pool: swarm.Pool,
    runtime: swarm.Runtime,
    store: swarm.Store,
    options: Any,
    variant: str,
    lam: float,
    seed: int,
) -> tuple[float, float, float]:
    """Score, USD a thousand questions and calls a question, on test."""
    started = time.perf_counter()
    job = swarm.MasRouter(
        **{"lambda": lam},
        seed=seed,
        epochs=options.epochs,
        measure=False,
        reference=variant == "published",
    )
    best = job.fit(
        task, pool, limit=options.questions, store=store, runtime=runtime, progress=Silent()
    )
    summary = best.evaluate(task, "test", limit=options.test, store=store).summary()
    score, cost = summary.score, 1000 * summary.cost / summary.questions
    calls = summary.calls / summary.questions
    _said(
        f"{task.name}, {variant} λ={lam:g} seed {seed}: "
        f"{score:.3f}, {cost:.4f}, {calls:.1f} calls, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return score, cost, calls


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
