"""Role-step as published against role-step that explores, at equal numbers of graphs.

    python benchmarks/role_step.py --out benchmarks/results/role_step.json

Runs on perfect agents of the zoo's world (examples/zoo/world.py), which answer as the trained
models would if they made no mistakes: a whole job takes seconds, so that many seeds can be
compared. Dev and test are the zoo's relay questions.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from _perfect import ZOO, pool
from _table import arguments, report

import swarm
from swarm.runtime.progress import Silent

VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {"explore": 0.0},
    "as published, top_p 0.5": {"explore": 0.0, "top_p": 0.5},
    "explore 0.1": {"explore": 0.1},
    "explore 0.2": {"explore": 0.2},
    "explore 0.4": {"explore": 0.4},
    "random search": {"search": "random"},
    "CMA-ES, as published otherwise": {"search": "cmaes", "explore": 0.0},
    "CMA-ES, explore 0.2": {"search": "cmaes"},
    "REINFORCE": {"search": "reinforce", "explore": 0.0},
    "REINFORCE, explore 0.2": {"search": "reinforce"},
}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--particles", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=10)
    options = parser.parse_args()
    task, experts = swarm.Task.load(ZOO / "relay.toml"), pool()
    runtime = swarm.Runtime()

    def test(graphs: list[swarm.AgentGraph]) -> list[float]:
        return [e.score for e in swarm.evaluate(graphs, task, experts, runtime=runtime)]

    found: dict[str, list[float]] = {name: [] for name in ("best of as many random", *VARIANTS)}
    for seed in range(options.seeds):
        count = options.particles * options.iterations
        graphs = swarm.random_graphs(experts, count, seed=seed)
        dev = swarm.evaluate(graphs, task, experts, split="dev", runtime=runtime)
        found["best of as many random"] += test([max(dev, key=lambda e: e.score).graph])
        for name, knobs in VARIANTS.items():
            job = swarm.RoleStep(
                particles=options.particles,
                iterations=options.iterations,
                patience=options.iterations,
                seed=seed,
                **knobs,
            )
            best = job.fit(task, experts, runtime=runtime, progress=Silent())
            found[name] += test([best.graph])
        print(f"seed {seed}: " + ", ".join(f"{v[-1]:.3f}" for v in found.values()), file=sys.stderr)
    published, explore = found["as published"], found["explore 0.2"]
    report(
        {
            "published": statistics.mean(published),
            "explore": statistics.mean(explore),
            "explore_gain": statistics.mean(explore) - statistics.mean(published),
            "explore_wins": sum(a > b for a, b in zip(explore, published, strict=True)),
            "seeds": options.seeds,
        },
        [
            {
                "search": name,
                "test": statistics.mean(scores),
                "sd": statistics.stdev(scores),
                "min": min(scores),
                "max": max(scores),
            }
            for name, scores in found.items()
        ],
        options,
    )


if __name__ == "__main__":
    main()
