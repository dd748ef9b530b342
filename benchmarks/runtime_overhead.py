"""What the runtime costs a node and question, against plain LangGraph with a run a question.

    python benchmarks/runtime_overhead.py --out benchmarks/results/runtime_overhead.json

A chain of eight agents on the scripted engine, whose experts answer with a constant. Ours takes the
questions as one column, all included: prompts, scheduling, the engine's call, collecting answers.
The plain program has the same eight nodes, each building the same prompt and calling the same
function, and is invoked once a question. Both are compiled before and run in turn in one process;
medians. Two rows are with a limit on prompts: one that all are far from, as they should be, and one
that is so near that a template must be counted and every prompt looked at. A last row is a whole
evaluation, compiled, scored and recorded in a store.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

from _table import arguments, report

import swarm
from swarm.agents.messages import Messages
from swarm.graphs import chain
from swarm.runtime.compile import resolve
from swarm.runtime.evaluate import Evaluator
from swarm.runtime.program import Program
from swarm.runtime.recording import StoreRecorder

AGENTS = 8
COLUMNS = (1, 32, 2000)
CONTEXTS = {"far": 32_768, "near": 700}
"""Tokens, for the rows with a limit."""
PLAIN = 32
"""Questions that the plain program is asked: its cost a question does not depend on them."""


def answer(messages: Messages) -> str:
    return "a short answer"


def task_of(questions: int) -> swarm.Task:
    records = [{"question": f"question number {i}", "answer": "x"} for i in range(questions)]
    return swarm.Task.from_records("overhead", lambda example, text: 1.0, dev=records)


class PlainState(TypedDict):
    question: str
    response: str


def plain_program(pool: swarm.Pool) -> Any:
    """The same chain as anybody would write it."""
    from langgraph.graph import END, START, StateGraph

    builder = StateGraph(PlainState)
    before = START
    for expert in pool.values():

        async def node(state: PlainState, expert: swarm.Expert = expert) -> dict[str, str]:
            told = [state["response"]] if state["response"] else []
            [prompt] = expert.style.messages(
                swarm.Role(name="solver"), "middle", [state["question"]], [told] if told else []
            )
            return {"response": answer(prompt)}

        builder.add_node(expert.name, node)
        builder.add_edge(before, expert.name)
        before = expert.name
    builder.add_edge(before, END)
    return builder.compile()


def with_limit(expert: swarm.Expert, context: int) -> swarm.Expert:
    return expert.model_copy(update={"context": context, "overflow": "shorten"})


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    gc.collect()  # each pays for its own garbage only
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def measure(rounds: int) -> dict[str, list[float]]:
    """Microseconds a node and question, by what was run."""
    pool = swarm.Pool(
        [swarm.Expert.scripted(f"expert-{i}", answer, prompt="compact") for i in range(AGENTS)]
    )
    graph, runtime = chain(list(pool)), swarm.Runtime(memory=AGENTS)
    plain = plain_program(pool)
    found: dict[str, list[float]] = {}

    def note(name: str, elapsed: float, questions: int) -> None:
        found.setdefault(name, []).append(1e6 * elapsed / questions / AGENTS)

    questions = {n: [f"question number {i}" for i in range(n)] for n in COLUMNS}
    task = task_of(2000)
    nodes = resolve(graph, pool)
    limited = {
        name: resolve(graph, swarm.Pool(with_limit(each, context) for each in pool.values()))
        for name, context in CONTEXTS.items()
    }

    async def ours(name: str, n: int, nodes: Any) -> None:
        scheduler = runtime.scheduler()
        program = Program(graph, nodes, lambda: scheduler)
        note(name, await seconds(lambda: program.run(questions[n])), n)

    for _ in range(rounds):
        for n in COLUMNS:
            await ours(f"ours, a column of {n}", n, nodes)
        for name, others in limited.items():
            await ours(f"ours, a column of 2000, its limit {name}", 2000, others)

        async def one_by_one() -> None:
            for i in range(PLAIN):
                await plain.ainvoke({"question": f"question number {i}", "response": ""})

        note("plain LangGraph, one by one", await seconds(one_by_one), PLAIN)
        elapsed = await seconds(lambda: recorded_evaluation(graph, task, pool, runtime))
        note("ours, a recorded evaluation of 2000", elapsed, 2000)
    return found


async def recorded_evaluation(
    graph: swarm.AgentGraph, task: swarm.Task, pool: swarm.Pool, runtime: swarm.Runtime
) -> None:
    with tempfile.TemporaryDirectory() as folder, swarm.Store.open(f"{folder}/x.db") as store:
        run = store.start_run("evaluation", "overhead", {})
        evaluator = Evaluator(task, "dev", pool, runtime.scheduler(StoreRecorder(store, run)))
        [evaluation] = await evaluator([graph])
        with store.transaction():
            store.add_evaluation(run, evaluator.record(evaluation))


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds + 1))
    medians = {name: statistics.median(times[1:]) for name, times in found.items()}
    plain, ours = medians["plain LangGraph, one by one"], medians["ours, a column of 2000"]
    report(
        {
            "us_2000": ours,
            "us_2000_limited": medians["ours, a column of 2000, its limit far"],
            "plain_over_ours": plain / ours,
            "agents": AGENTS,
        },
        [
            {"what": name, "us_per_node_and_question": us, "plain_over_it": plain / us}
            for name, us in medians.items()
        ],
        options,
    )


if __name__ == "__main__":
    main()
