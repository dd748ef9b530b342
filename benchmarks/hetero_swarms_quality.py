"""What searching graphs and weights is worth: the joint job, its parts, and the baselines.

    python benchmarks/hetero_swarms_quality.py --out benchmarks/results/hetero_swarms_quality.json

The zoo's nine experts on relay: searched on the first dev questions, measured on all 200 of test.
The joint job scores particles + casts graphs an iteration; searches of graphs alone get twice the
iterations, and so score as many. Intervals are 95 % over the questions of all seeds (Wilson's).
With `--store` the jobs are kept there, and what was done is not done again.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from _table import arguments, report

import swarm
from swarm.optimizers import find_optimizer
from swarm.runtime.evaluate import interval
from swarm.runtime.progress import Silent

ZOO = Path(__file__).parent.parent / "examples" / "zoo"

SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "joint": ("hetero_swarm", {}),
    "joint, as published": (
        "hetero_swarm",
        {"explore": 0.0, "keep": 0.0, "role_experts": "current"},
    ),
    "role-step": ("role_step", {}),
    "role-step, as published": ("role_step", {"explore": 0.0}),
    "random search": ("role_step", {"search": "random"}),
    "CMA-ES": ("role_step", {"search": "cmaes"}),
    "REINFORCE": ("role_step", {"search": "reinforce"}),
}
"""Name → optimizer and its settings; all get the same number of evaluations."""
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "best single": ("best_single", {}),
    "majority vote": ("majority_vote", {}),
    "uniform soup": ("uniform_soup", {}),
    "greedy soup": ("greedy_soup", {}),
    "DARE-TIES": ("dare_ties", {}),
    "LoraHub": ("lorahub", {}),
    "Model Swarms": ("model_swarms", {}),
    "chain": ("chain", {}),
    "star": ("star", {}),
    "random graphs": ("random_graphs", {}),
}
ORDERED = {"chain", "star"}
"""What depends on the pool's order, which is nearly the right one in the file: shuffled by seed."""
SEEDED = {"LoraHub", "Model Swarms", "DARE-TIES", "random graphs", *SEARCHES}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=6, help="and casts a weight-step")
    parser.add_argument("--iterations", type=int, default=7, help="of the joint job")
    parser.add_argument("--questions", type=int, default=100, help="of dev")
    parser.add_argument("--methods", nargs="*", default=[*SEARCHES, *BASELINES])
    parser.add_argument("--store", default=None)
    options = parser.parse_args()
    pool, task = swarm.Pool.load(ZOO / "pool.toml"), swarm.Task.load(ZOO / "relay.toml")
    runtime = swarm.Runtime()
    rows, means = [], {}
    for method in options.methods:
        name, how = {**SEARCHES, **BASELINES}[method]
        tests: list[list[float]] = []
        devs, calls = [], []
        for seed in range(options.seeds if method in SEEDED | ORDERED else 1):
            experts = pool
            if method in ORDERED:
                experts = pool.subset(*random.Random(seed).sample(list(pool), len(pool)))
            settings = {**how, **({"seed": seed} if method in SEEDED else {})}
            if method in SEARCHES:
                n, k = options.iterations, options.particles
                settings["particles"] = k
                if name == "hetero_swarm":
                    settings |= {"assignments": k, "iterations": n, "patience": n}
                else:
                    settings |= {"iterations": 2 * n, "patience": 2 * n}
            started = time.perf_counter()
            store = options.store or swarm.Store.open("sqlite://")
            best = find_optimizer(name)(**settings).fit(
                task,
                experts,
                limit=options.questions,
                store=store,
                runtime=runtime,
                progress=Silent(),
            )
            with swarm.Store.open(store) if isinstance(store, str) else store as opened:
                assert best.run is not None
                summary = opened.run(best.run).summary or {}
            devs.append(summary["score"])
            calls.append(summary["calls"])
            tests.append(list(best.evaluate(task, "test", store=options.store).scores))
            seconds = time.perf_counter() - started
            print(
                f"{method} {seed}: dev {devs[-1]:.3f}, test {statistics.mean(tests[-1]):.3f}, "
                f"{calls[-1]} calls, {seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        scores = [score for each in tests for score in each]
        low, high = interval(scores)
        means[method] = math.fsum(scores) / len(scores)
        rows.append(
            {
                "method": method,
                "test": means[method],
                "low": low,
                "high": high,
                "by_seed": " ".join(f"{statistics.mean(each):.3f}" for each in tests),
                "dev": statistics.mean(devs),
                "calls": statistics.mean(calls),
            }
        )
    headline: dict[str, Any] = {
        key: means.get(method)
        for key, method in (
            ("joint", "joint"),
            ("role_only", "role-step"),
            ("best_single", "best single"),
        )
    }
    if {"joint", "role-step"} <= means.keys():
        headline["weight_gain"] = means["joint"] - means["role-step"]
    size = {k: getattr(options, k) for k in ("seeds", "particles", "iterations", "questions")}
    report({**headline, **size}, rows, options)


if __name__ == "__main__":
    main()
