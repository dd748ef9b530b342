"""What a graph of its own costs each question, against a LangGraph program compiled for each graph.

    python benchmarks/policy_overhead.py --out benchmarks/results/policy_overhead.json

As many questions as graphs, all of one shape (four recruited experts and an aggregator of sixteen)
and no two the same, on the scripted engine, whose experts answer with a constant. The baseline
compiles each graph and invokes it over its question, all at once, on the same scheduler. Ours is
`run_together`, which compiles the shape once and runs all graphs in one program; a third row has
one graph for all questions; the last is a policy's whole evaluation, chosen, run, scored, recorded.
Run in turn in one process; medians. Measured on two shared CPU cores; not measured on a GPU.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from _table import arguments, report

import swarm
from swarm.agents.messages import Messages
from swarm.graphs import star
from swarm.runtime import program as compiling
from swarm.runtime.compile import compile_graph, resolve
from swarm.runtime.policy import Arrays, Policy
from swarm.runtime.program import Program, run_together
from swarm.runtime.runtime import gather
from swarm.runtime.system import aevaluate_policy

EXPERTS, RECRUITED = 16, 4


def answer(messages: Messages) -> str:
    return "a short answer"


class Listed(Policy):
    """Question number i → graph number i."""

    name: ClassVar[str] = "listed"

    def __init__(self, graphs: Sequence[swarm.AgentGraph]) -> None:
        self.graphs = graphs

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(sorted({name for graph in self.graphs for name in graph.experts}))

    def graphs_for(self, questions: Sequence[str]) -> list[swarm.AgentGraph]:
        return [self.graphs[int(question.split()[-1])] for question in questions]

    def state(self) -> tuple[dict[str, Any], Arrays]:
        return {"graphs": [graph.to_json() for graph in self.graphs]}, {}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        return cls([swarm.AgentGraph.from_json(text) for text in values["graphs"]])


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def measure(rounds: int, n: int) -> dict[str, list[float]]:
    """Milliseconds a question, by what was run."""
    pool = swarm.Pool([swarm.Expert.scripted(f"expert-{i}", answer) for i in range(EXPERTS)])
    rng, names = np.random.default_rng(0), np.array(list(pool))
    graphs: dict[swarm.AgentGraph, None] = {}
    while len(graphs) < n:
        chosen = rng.permutation(names)[: RECRUITED + 1].tolist()
        graphs[star(chosen)] = None
    different, runtime = list(graphs), swarm.Runtime(memory=EXPERTS)
    questions = [f"question number {i}" for i in range(n)]
    records = [{"question": question, "answer": "x"} for question in questions]
    task = swarm.Task.from_records("overhead", lambda example, text: 1.0, test=records)
    found: dict[str, list[float]] = {}

    async def compiled_each() -> None:
        scheduler = runtime.scheduler()
        programs = [
            compile_graph(graph, resolve(graph, pool), lambda: scheduler, awaited=True)
            for graph in different
        ]
        await gather(
            program.ainvoke({"questions": [question], "responses": {}})
            for program, question in zip(programs, questions, strict=True)
        )

    async def together(graphs: Sequence[swarm.AgentGraph]) -> None:
        compiling._compile_shape.cache_clear()
        scheduler = runtime.scheduler()
        work = [
            (Program(graph, resolve(graph, pool), lambda: scheduler), asked)
            for graph, asked in zip(
                graphs, [[q] for q in questions] if len(graphs) > 1 else [questions], strict=True
            )
        ]
        await run_together(work)

    async def evaluated() -> None:
        with tempfile.TemporaryDirectory() as folder:
            await aevaluate_policy(
                Listed(different), task, pool, store=f"{folder}/x.db", runtime=runtime
            )

    for _ in range(rounds):
        for name, work in {
            "a program compiled for each graph": compiled_each,
            "ours, all graphs of a shape together": lambda: together(different),
            "ours, one graph for all": lambda: together(different[:1]),
            "ours, a policy's recorded evaluation": evaluated,
        }.items():
            found.setdefault(name, []).append(1e3 * await seconds(work) / n)
    return found


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds + 1, options.questions))
    medians = {name: statistics.median(times[1:]) for name, times in found.items()}
    each, ours = list(medians.values())[:2]
    report(
        {"ms_a_question": ours, "ratio": each / ours, "questions": options.questions},
        [
            {"what": name, "ms_a_question": ms, "baseline_over_it": each / ms}
            for name, ms in medians.items()
        ],
        options,
    )


if __name__ == "__main__":
    main()
