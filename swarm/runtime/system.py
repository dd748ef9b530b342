"""A system is a graph ready to run: ask it one question or many, embed it, or have it scored."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.agents.expert import Pool
from swarm.agents.messages import Messages, Response
from swarm.agents.role import Role
from swarm.errors import EngineError
from swarm.graphs import topologies
from swarm.graphs.graph import Agent, AgentGraph
from swarm.runtime.compile import Program, compile_graph, resolve
from swarm.runtime.evaluate import Evaluation, Evaluator, select
from swarm.runtime.recording import StoreRecorder, finishing, wording
from swarm.runtime.runtime import Runtime, default_runtime, iterate, run_sync
from swarm.runtime.scheduler import Outcome
from swarm.store import Store
from swarm.tasks import Task

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


class Call(NamedTuple):
    """One agent's part in a trace."""

    agent: Agent
    prompt: Messages
    response: Response | None
    cached: bool
    error: str | None


class Trace(NamedTuple):
    """One question's way through the graph."""

    question: str
    text: str | None
    """The end node's response; None if a call failed."""
    calls: tuple[Call, ...]
    """In the order in which agents can answer; those that were not asked are missing."""
    error: str | None
    """The first call's that failed."""


class System:
    """A graph with the experts and roles that play in it.

    Made of what was checked: an expert or role that is not known is refused here, before any model
    is loaded. Models are loaded when first asked and stay loaded in `runtime`.
    """

    def __init__(
        self,
        graph: AgentGraph,
        pool: Pool,
        *,
        roles: Mapping[str, Role] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.graph = graph
        self.pool = pool
        self.roles = dict(roles or {})
        self.runtime = runtime or default_runtime()
        self.run: int | None = None
        """The id of the job that found this system, where one did."""
        self._nodes = resolve(graph, pool, self.roles)

    def __repr__(self) -> str:
        return f"System({self.graph!r})"

    def as_langgraph(self, **options: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The compiled LangGraph program: give ``{"questions": [...]}``, get ``"answers"``.

        `options` go to LangGraph's `compile`: `checkpointer`, `interrupt_before` and so on. A call
        that fails gives None for its question; if all fail, the error is raised.
        """
        return compile_graph(self.graph, self._nodes, self.runtime.shared_scheduler, **options)

    @functools.cached_property
    def _program(self) -> Program:
        return Program(self.graph, self._nodes, self.runtime.shared_scheduler)

    def invoke(self, question: str) -> Trace:
        """Answers one question.

        Raises:
            EngineError: a call failed.
        """
        return run_sync(self.ainvoke(question))

    async def ainvoke(self, question: str) -> Trace:
        """See `invoke`."""
        [trace] = await self.abatch([question])
        if trace.text is None:
            raise EngineError(trace.error or "the system gave no answer")
        return trace

    def batch(self, questions: Sequence[str]) -> list[Trace]:
        """Answers many questions together. One that fails has no text, but an error."""
        return run_sync(self.abatch(questions))

    async def abatch(self, questions: Sequence[str]) -> list[Trace]:
        """See `batch`."""
        columns = await self._program.run(questions)
        calls: list[list[Call]] = [[] for _ in questions]
        for rows, run in columns:
            for agent in self.graph.order:
                entry = run.log[agent.name]
                asked = rows if entry.rows is None else (rows[i] for i in entry.rows)
                for row, prompt, outcome, cached in zip(
                    asked, entry.prompts, entry.outcomes, entry.cached, strict=True
                ):
                    calls[row].append(_call(agent, prompt, outcome, cached))
        answers = [answer for _, run in columns for answer in run.answers]
        return [
            Trace(question, answer, tuple(called), next((c.error for c in called if c.error), None))
            for question, answer, called in zip(questions, answers, calls, strict=True)
        ]

    def stream(self, question: str, *, tokens: bool = False) -> Iterator[tuple[str, str]]:
        """(agent, response) as each agent answers; the end node's is the last.

        With `tokens`, (agent, piece) as responses are written, where the expert's engine gives them
        in pieces (`server` does), else in one. Agents that write at the same time take turns.

        Raises:
            EngineError: a call failed; what was given of its response is not whole.
        """
        return iterate(self.astream(question, tokens=tokens))

    def astream(self, question: str, *, tokens: bool = False) -> AsyncIterator[tuple[str, str]]:
        """See `stream`."""
        return self._program.stream(question, tokens=tokens)

    def export(self, folder: str | PathLike[str]) -> None:
        """Writes the system to a new folder; see `swarm.runtime.export`."""
        from swarm.runtime.export import export

        export(self, Path(folder))

    def evaluate(
        self,
        task: Task,
        split: str = "test",
        *,
        limit: int | None = None,
        store: str | PathLike[str] | Store | None = None,
        name: str | None = None,
    ) -> Evaluation:
        """Scores the system on a split, or its first `limit` questions.

        With a store, the evaluation is recorded as a run, and what the store knows is not asked
        again.
        """
        [evaluation] = evaluate(
            [self.graph],
            task,
            self.pool,
            split=split,
            limit=limit,
            store=store,
            roles=self.roles,
            runtime=self.runtime,
            name=name,
        )
        return evaluation


def _call(agent: Agent, prompt: Messages, outcome: Outcome, cached: bool) -> Call:
    if isinstance(outcome, Response):
        return Call(agent, prompt, outcome, cached, None)
    return Call(agent, prompt, None, cached, str(outcome))


def evaluate(
    graphs: Sequence[AgentGraph],
    task: Task,
    pool: Pool,
    *,
    split: str = "test",
    limit: int | None = None,
    store: str | PathLike[str] | Store | None = None,
    roles: Mapping[str, Role] | None = None,
    runtime: Runtime | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Evaluation]:
    """Scores several graphs together: one evaluation each, in their order.

    With a store they are recorded as one run, called `name`, with `settings`.
    """
    work = aevaluate(
        graphs,
        task,
        pool,
        split=split,
        limit=limit,
        store=store,
        roles=roles,
        runtime=runtime,
        name=name,
        settings=settings,
    )
    return run_sync(work)


async def aevaluate(
    graphs: Sequence[AgentGraph],
    task: Task,
    pool: Pool,
    *,
    split: str = "test",
    limit: int | None = None,
    store: str | PathLike[str] | Store | None = None,
    roles: Mapping[str, Role] | None = None,
    runtime: Runtime | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Evaluation]:
    """See `evaluate`."""
    runtime = runtime or default_runtime()
    for graph in graphs:
        resolve(graph, pool, roles)  # bad input is refused before anything is recorded
    select(task, split, limit)
    if store is None:
        scheduler = runtime.shared_scheduler()
        return await Evaluator(task, split, pool, scheduler, roles=roles, limit=limit)(graphs)
    opened = store if isinstance(store, Store) else Store.open(store)
    try:
        described = {
            "task": task.name,
            "pool": pool.name,
            "split": split,
            "limit": limit,
            "graphs": len(graphs),
            **wording(pool, sorted({name for graph in graphs for name in graph.experts}), roles),
            **(settings or {}),
        }
        run = opened.start_run("evaluation", name or f"{task.name} {split}", described)
        with opened.lock_run(run), finishing(opened, run) as summary:
            recorder = StoreRecorder(opened, run)
            scheduler = runtime.scheduler(recorder)
            evaluator = Evaluator(task, split, pool, scheduler, roles=roles, limit=limit)
            evaluations = await evaluator(graphs)
            with opened.transaction():
                for number, evaluation in enumerate(evaluations):
                    opened.add_evaluation(run, evaluator.record(evaluation, {"graph": number}))
            best = max(evaluations, key=lambda e: e.score)
            summary.update(best.summary().as_dict(), run=run)
            for evaluation in evaluations:
                evaluation.run = run
        return evaluations
    finally:
        if opened is not store:
            opened.close()


def single(expert: str, *, pool: Pool, role: str = "solver") -> System:
    """A system of one expert."""
    return System(topologies.single(expert, role=role), pool)


def chain(*experts: str, pool: Pool, roles: str | Sequence[str] = "solver") -> System:
    """A system in which each expert reads the one before it."""
    return System(topologies.chain(experts, roles=roles), pool)


def star(*experts: str, pool: Pool, roles: str | Sequence[str] = "solver") -> System:
    """A system in which the last expert reads all the others."""
    return System(topologies.star(experts, roles=roles), pool)
