"""How fast MasRouter trains, beside one query after the other through the same engine.

    python benchmarks/masrouter_speed.py --out benchmarks/results/masrouter_speed.json

A whole training on relay with the zoo's models from an empty store, all included, against what its
graphs and questions would take one after the other through the same engine, as the published code
runs them, where nothing is remembered: timed on a sample and scaled by the number of calls. Ours,
and the same with everything as published (a graph a question and epoch, so that less can be
batched). `speedup_if_both_remembered` scales by the calls that had to be asked instead.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from _perfect import ZOO
from _table import arguments, report

import swarm
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import single
from swarm.optimizers.masrouter.train import Answer
from swarm.optimizers.policy import Bench
from swarm.runtime.cache import MemoryCache
from swarm.runtime.evaluate import Evaluator
from swarm.runtime.progress import Silent


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=200, help="of dev")
    parser.add_argument("--epochs", type=int, help="its defaults: 10, as published 5")
    parser.add_argument("--sample", type=int, default=60, help="graphs run one by one")
    options = parser.parse_args()
    task = swarm.Task.load(ZOO / "relay.toml")
    pool = swarm.Pool.load(ZOO / "pool.toml")
    runtime = swarm.Runtime()
    _one_by_one(task, pool, runtime, [(single(name), 0) for name in pool])  # all is loaded
    rows = [
        _training(task, pool, runtime, options, name, reference=reference)
        for name, reference in (("ours", False), ("published", True))
    ]
    report(
        {
            "training_speedup": rows[0]["speedup"],
            "published_speedup": rows[1]["speedup"],
            "questions": options.questions,
            "measured_on": "two shared CPU cores; not measured on a GPU",
        },
        rows,
        options,
    )


class _Noting(swarm.MasRouter):
    """Keeps which graphs its training asks which questions of."""

    asked: list[tuple[AgentGraph, int]]

    def _answers(self, bench: Bench) -> Answer:
        answers, self.asked = super()._answers(bench), []

        async def answer(graphs: Sequence[AgentGraph], rows: Sequence[int]) -> Any:
            self.asked += zip(graphs, rows, strict=True)
            return await answers(graphs, rows)

        return answer


def _training(
    task: swarm.Task,
    pool: swarm.Pool,
    runtime: swarm.Runtime,
    options: Any,
    name: str,
    *,
    reference: bool,
) -> dict[str, Any]:
    given = {} if options.epochs is None else {"epochs": options.epochs}
    job = _Noting(reference=reference, measure=False, seed=1, **given)
    with swarm.Store.open("sqlite://") as store:
        started = time.perf_counter()
        system = job.fit(
            task, pool, limit=options.questions, store=store, runtime=runtime, progress=Silent()
        )
        seconds = time.perf_counter() - started
        assert system.run is not None
        asked = sum(each.batch.requests for each in store.batches(system.run))
    calls = sum(len(graph.agents) for graph, _ in job.asked)
    sample = job.asked[:: max(1, len(job.asked) // options.sample)]
    apart = _one_by_one(task, pool, runtime, sample) * calls
    row = {
        "training": name,
        "epochs": job.settings()["epochs"],
        "speedup": apart / seconds,
        "seconds": seconds,
        "one_by_one_seconds": apart,
        "graphs": len(job.asked),
        "calls": calls,
        "calls_asked": asked,
        "speedup_if_both_remembered": apart * asked / calls / seconds,
    }
    print(row, file=sys.stderr, flush=True)
    return row


def _one_by_one(
    task: swarm.Task,
    pool: swarm.Pool,
    runtime: swarm.Runtime,
    asked: Sequence[tuple[AgentGraph, int]],
) -> float:
    """Seconds a call, of graphs each on one question, one after the other, nothing remembered."""

    async def run() -> float:
        seconds, calls = 0.0, 0
        for graph, row in asked:
            evaluator = Evaluator(task, "dev", pool, runtime.scheduler(MemoryCache()))
            started = time.perf_counter()
            await evaluator.each([(graph, [row])])
            seconds += time.perf_counter() - started
            calls += len(graph.agents)
        return seconds / calls

    return asyncio.run(run())


if __name__ == "__main__":
    main()
