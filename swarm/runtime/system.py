"""A system is a graph ready to run: ask it one question or many, embed it, or have it scored."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.agents.expert import Pool
from swarm.agents.messages import Messages, Response
from swarm.agents.role import Role
from swarm.errors import EngineError
from swarm.graphs import topologies
from swarm.graphs.graph import Agent, AgentGraph
from swarm.runtime.compile import AgentLog, GraphRun, compile_graph, current_run, resolve
from swarm.runtime.evaluate import Evaluation, Evaluator
from swarm.runtime.recording import StoreRecorder, finishing, wording
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
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
        return compile_graph(
            self.graph, self._nodes, self.runtime.shared_scheduler, run_sync, **options
        )

    @functools.cached_property
    def _program(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        return self.as_langgraph()

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
        scheduler = self.runtime.shared_scheduler()
        with scheduler.join([len(wave) for wave in self.graph.waves]) as participant:
            run = GraphRun(participant)
            token = current_run.set(run)
            try:
                await self._program.ainvoke(
                    {"questions": list(questions), "responses": {}}, self._config
                )
            finally:
                current_run.reset(token)
        return [self._trace(question, i, run) for i, question in enumerate(questions)]

    @property
    def _config(self) -> Any:
        return {"recursion_limit": len(self.graph.agents) + 2}

    def _trace(self, question: str, row: int, run: GraphRun) -> Trace:
        calls = []
        for agent in self.graph.order:
            entry: AgentLog = run.log[agent.name]
            if entry.rows is not None and row not in entry.rows:
                continue
            k = row if entry.rows is None else entry.rows.index(row)
            outcome = entry.outcomes[k]
            answered = isinstance(outcome, Response)
            calls.append(
                Call(
                    agent=agent,
                    prompt=entry.prompts[k],
                    response=outcome if isinstance(outcome, Response) else None,
                    cached=entry.cached[k],
                    error=None if answered else str(outcome),
                )
            )
        error = next((call.error for call in calls if call.error is not None), None)
        last = calls[-1]
        ended = last.agent.name == self.graph.end.name and last.response is not None
        text = last.response.text if ended and last.response is not None else None
        return Trace(question, text, tuple(calls), error)

    def stream(self, question: str) -> Iterator[tuple[str, str]]:
        """(agent, response) as each agent answers; the end node's is the last.

        Raises:
            EngineError: a call failed.
        """
        with asyncio.Runner() as runner:
            steps = self.astream(question)
            while True:
                try:
                    yield runner.run(anext(steps))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return

    async def astream(self, question: str) -> AsyncIterator[tuple[str, str]]:
        """See `stream`."""
        start = {"questions": [question], "responses": {}}
        async for update in self._program.astream(start, self._config, stream_mode="updates"):
            for state in update.values():
                for agent, (text,) in state["responses"].items():
                    yield agent, text

    def evaluate(
        self,
        task: Task,
        split: str = "test",
        *,
        limit: int | None = None,
        store: str | Store | None = None,
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


def evaluate(
    graphs: Sequence[AgentGraph],
    task: Task,
    pool: Pool,
    *,
    split: str = "test",
    limit: int | None = None,
    store: str | Store | None = None,
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
    store: str | Store | None = None,
    roles: Mapping[str, Role] | None = None,
    runtime: Runtime | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Evaluation]:
    """See `evaluate`."""
    runtime = runtime or default_runtime()
    for graph in graphs:
        resolve(graph, pool, roles)  # bad input is refused before anything is recorded
    if store is None:
        scheduler = runtime.shared_scheduler()
        return await Evaluator(task, split, pool, scheduler, roles=roles, limit=limit)(graphs)
    opened = Store.open(store) if isinstance(store, str) else store
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
        task.split(split)
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
