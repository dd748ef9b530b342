"""A system is a policy ready to run: ask it one question or many, embed it, or have it scored."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.agents.expert import Pool
from swarm.agents.messages import Messages, Response
from swarm.agents.role import Role
from swarm.agents.shortening import Cuts
from swarm.errors import EngineError, InputError
from swarm.graphs import topologies
from swarm.graphs.graph import Agent, AgentGraph
from swarm.runtime.columns import Outcome
from swarm.runtime.compile import GraphRun, compile_graph, resolve
from swarm.runtime.evaluate import Evaluation, Evaluator, select
from swarm.runtime.policy import Fixed, Policy, described_policy
from swarm.runtime.program import Program, run_together
from swarm.runtime.recording import StoreRecorder, current_store, finishing, wording
from swarm.runtime.routing import (
    POLICY_ROLE,
    Asked,
    Chosen,
    PolicyEvaluation,
    asked_state,
    choose,
    route,
)
from swarm.runtime.runtime import Runtime, default_runtime, iterate, run_sync
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
    shortened: Cuts = ()
    """What was cut of predecessors' responses so that the prompt fits; empty: nothing."""


class Trace(NamedTuple):
    """One question's way through the graph that was chosen for it."""

    question: str
    text: str | None
    """The end node's response; None if a call failed."""
    calls: tuple[Call, ...]
    """In the order in which agents can answer; those that were not asked are missing."""
    error: str | None
    """The first call's that failed."""
    graph: AgentGraph
    routing: tuple[Call, ...] = ()
    """What the policy asked about this question, to choose the graph."""


class System:
    """A policy, or a graph for all questions, with the experts and roles that play in it.

    Made of what was checked: an expert or role that is not known is refused here, before any model
    is loaded. Models are loaded when first asked and stay loaded in `runtime`.
    """

    def __init__(
        self,
        policy: AgentGraph | Policy,
        pool: Pool,
        *,
        roles: Mapping[str, Role] | None = None,
        runtime: Runtime | None = None,
        drop: bool = False,
    ) -> None:
        """`drop`: goes on without experts of the policy that `pool` does not have."""
        if isinstance(policy, AgentGraph):
            policy = Fixed(policy)
        self.roles = dict(roles or {})
        self.runtime = runtime or default_runtime(pool.memory)
        self.run: int | None = None
        """The id of the job that found this system, where one did."""
        self.policy = policy if isinstance(policy, Fixed) else policy.fits(pool, drop=drop)
        self.pool = self.policy.extend(pool)
        if isinstance(self.policy, Fixed):
            self._nodes = resolve(self.policy.graph, pool, self.roles)

    def __repr__(self) -> str:
        return f"System({self.graph!r})" if self.fixed else f"System({self.policy!r})"

    @property
    def fixed(self) -> bool:
        """Whether all questions have one graph."""
        return isinstance(self.policy, Fixed)

    @property
    def graph(self) -> AgentGraph:
        """The graph of all questions.

        Raises:
            InputError: the system's policy chooses one for each question.
        """
        if not isinstance(self.policy, Fixed):
            raise InputError(
                f"policy `{self.policy.name}` has no one graph: it chooses one for each question; "
                "see `graph` of a `Trace`"
            )
        return self.policy.graph

    def as_langgraph(self, **options: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The compiled LangGraph program: give ``{"questions": [...]}``, get ``"answers"``.

        With a graph, each agent is a node. With a policy there are two, `route` and `answer`:
        between them the state's ``"graphs"`` hold the graph of each question as JSON, for
        whoever interrupts there to look at, or to change.

        `options` go to LangGraph's `compile`: `checkpointer`, `interrupt_before` and so on. A call
        that fails gives None for its question; if all fail, the error is raised.
        """
        if self.fixed:
            return compile_graph(self.graph, self._nodes, self.runtime.shared_scheduler, **options)
        from swarm.runtime.routing import compile_policy

        return compile_policy(
            self.policy, self.pool, self.roles, self.runtime.shared_scheduler, **options
        )

    @functools.cached_property
    def _program(self) -> Program:
        return Program(self.graph, self._nodes, self.runtime.shared_scheduler)

    def _program_of(self, graph: AgentGraph) -> Program:
        nodes = resolve(graph, self.pool, self.roles)
        return Program(graph, nodes, self.runtime.shared_scheduler)

    async def _choose(self, questions: Sequence[str]) -> Chosen:
        scheduler = self.runtime.shared_scheduler()
        return await choose(self.policy, questions, scheduler, self.pool, self.roles)

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
        routing: list[list[Call]] = [[] for _ in questions]
        work: list[tuple[Program, Sequence[int]]]
        if self.fixed:
            work = [(self._program, range(len(questions)))]
        else:
            chosen = await self._choose(questions)
            work = [(self._program_of(graph), rows) for graph, rows in chosen.groups()]
            for place, call in _own_calls(chosen.asked):
                routing[place].append(call)
        columns = await run_together([(p, [questions[i] for i in rows]) for p, rows in work])
        traces: dict[int, Trace] = {}
        for (program, rows), runs in zip(work, columns, strict=True):
            calls = _calls(program.graph, runs, len(rows))
            answers = [answer for _, run in runs for answer in run.answers]
            for row, called, answer in zip(rows, calls, answers, strict=True):
                error = next((call.error for call in called if call.error), None)
                traces[row] = Trace(
                    questions[row],
                    answer,
                    tuple(called),
                    error,
                    program.graph,
                    tuple(routing[row]),
                )
        return [traces[row] for row in range(len(questions))]

    def stream(self, question: str, *, tokens: bool = False) -> Iterator[tuple[str, str]]:
        """(agent, response) as each agent answers; the end node's is the last.

        With `tokens`, (agent, piece) as responses are written, where the expert's engine gives them
        in pieces (`server` does), else in one. Agents that write at the same time take turns.

        Raises:
            EngineError: a call failed; what was given of its response is not whole.
        """
        return iterate(self.astream(question, tokens=tokens))

    async def astream(
        self, question: str, *, tokens: bool = False
    ) -> AsyncIterator[tuple[str, str]]:
        """See `stream`."""
        if self.fixed:
            program = self._program
        else:
            [graph] = (await self._choose([question])).graphs
            program = self._program_of(graph)
        async for step in program.stream(question, tokens=tokens):
            yield step

    def export(self, folder: str | PathLike[str]) -> None:
        """Writes the system to a new folder; see `swarm.runtime.export`."""
        from swarm.runtime.export import export

        export(self, Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        *,
        pool: Pool | None = None,
        runtime: Runtime | None = None,
        drop: bool = False,
    ) -> System:
        """The system that was exported to `folder`.

        Args:
            pool: in place of the one that was written along with it.
            drop: goes on without experts of its policy that `pool` does not have.

        Raises:
            InputError: there is none, or it can't be read.
        """
        from swarm.runtime.export import load

        policy, written = load(Path(folder), pool)
        return cls(policy, written, runtime=runtime, drop=drop)

    def evaluate(
        self,
        task: Task,
        split: str = "test",
        *,
        limit: int | None = None,
        store: str | PathLike[str] | Store | None = None,
        name: str | None = None,
    ) -> Evaluation | PolicyEvaluation:
        """Scores the system on a split, or its first `limit` questions.

        With a store, the evaluation is recorded as a run, and what the store knows is not asked
        again. A policy's has a part for each different graph.
        """
        return run_sync(self.aevaluate(task, split, limit=limit, store=store, name=name))

    async def aevaluate(
        self,
        task: Task,
        split: str = "test",
        *,
        limit: int | None = None,
        store: str | PathLike[str] | Store | None = None,
        name: str | None = None,
    ) -> Evaluation | PolicyEvaluation:
        """See `evaluate`."""
        how: dict[str, Any] = {"split": split, "limit": limit, "store": store, "name": name}
        how |= {"roles": self.roles, "runtime": self.runtime}
        if not self.fixed:
            # So that the policy of the new run can be found again: it is with the job.
            source = {} if self.run is None else {"graph": str(self.run)}
            return await aevaluate_policy(self.policy, task, self.pool, settings=source, **how)
        [evaluation] = await aevaluate([self.graph], task, self.pool, **how)
        return evaluation


def _calls(
    graph: AgentGraph, columns: Sequence[tuple[range, GraphRun]], count: int
) -> list[list[Call]]:
    """Of each of `count` questions, the calls in the order in which agents can answer."""
    calls: list[list[Call]] = [[] for _ in range(count)]
    for rows, run in columns:
        for agent in graph.order:
            entry = run.log[agent.name]
            asked = rows if entry.rows is None else (rows[i] for i in entry.rows)
            for k, (row, prompt, outcome, cached) in enumerate(
                zip(asked, entry.prompts, entry.outcomes, entry.cached, strict=True)
            ):
                cuts = entry.cuts.get(k, ())
                calls[row].append(_call(agent, prompt, outcome, cached, cuts))
    return calls


def _own_calls(asked: Sequence[Asked]) -> Iterator[tuple[int, Call]]:
    """What a policy asked about a question in particular."""
    for each in asked:
        agent = Agent(name=each.expert.name, expert=each.expert.name, role=POLICY_ROLE)
        for i, place in enumerate(each.about):
            if place is not None:
                for outcome, cached in zip(each.outcomes[i], each.cached[i], strict=True):
                    yield place, _call(agent, each.prompts[i], outcome, cached)


def _call(agent: Agent, prompt: Messages, outcome: Outcome, cached: bool, cuts: Cuts = ()) -> Call:
    if isinstance(outcome, Response):
        return Call(agent, prompt, outcome, cached, None, cuts)
    return Call(agent, prompt, None, cached, str(outcome), cuts)


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
    runtime = runtime or default_runtime(pool.memory)
    for graph in graphs:  # bad input is refused before anything is recorded
        runtime.residency.check(node.expert for node in resolve(graph, pool, roles).values())
    select(task, split, limit)
    if store is None:
        scheduler = runtime.shared_scheduler()
        return await Evaluator(task, split, pool, scheduler, roles=roles, limit=limit)(graphs)
    described = {
        **_described(task, pool, split, limit),
        "graphs": len(graphs),
        **wording(pool, sorted({name for graph in graphs for name in graph.experts}), roles),
        **(settings or {}),
    }
    with _recording(store, name or f"{task.name} {split}", described) as (opened, run, summary):
        scheduler = runtime.scheduler(StoreRecorder(opened, run))
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


def evaluate_policy(policy: Policy, task: Task, pool: Pool, **how: Any) -> PolicyEvaluation:
    """Scores a policy; see `aevaluate_policy`."""
    return run_sync(aevaluate_policy(policy, task, pool, **how))


async def aevaluate_policy(
    policy: Policy,
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
) -> PolicyEvaluation:
    """Scores a policy. With a store it is recorded as one run, called `name`, with `settings`: an
    evaluation for each different graph, and what the policy asked to choose them.

    Raises:
        PoolError: `pool` lacks experts of the policy.
    """
    runtime = runtime or default_runtime(pool.memory)
    policy = policy.fits(pool)
    pool = policy.extend(pool)
    select(task, split, limit)
    if store is None:
        scheduler = runtime.shared_scheduler()
        return await route(
            Evaluator(task, split, pool, scheduler, roles=roles, limit=limit), policy
        )
    described = {
        **_described(task, pool, split, limit),
        "policy": {**described_policy(policy), "source": policy.fingerprint.hex()},
        **wording(pool, sorted(policy.experts), roles),
        **(settings or {}),
    }
    with _recording(store, name or f"{task.name} {split}", described) as (opened, run, summary):
        scheduler = runtime.scheduler(StoreRecorder(opened, run))
        evaluator = Evaluator(task, split, pool, scheduler, roles=roles, limit=limit)
        evaluation = await route(evaluator, policy)
        with opened.transaction():
            records = [
                evaluator.record(part, {"graph": number, "policy": policy.name})
                for number, part in enumerate(evaluation.parts)
            ]
            opened.add_evaluations(run, records)
            if evaluation.asked:
                opened.save_state(run, {"asked": asked_state(evaluation)})
        summary.update(evaluation.summary().as_dict(), run=run)
        evaluation.run = run
    return evaluation


def _described(task: Task, pool: Pool, split: str, limit: int | None) -> dict[str, Any]:
    return {"task": task.name, "pool": pool.name, "split": split, "limit": limit}


@contextmanager
def _recording(
    store: str | PathLike[str] | Store, name: str, settings: Mapping[str, Any]
) -> Iterator[tuple[Store, int, dict[str, Any]]]:
    """A new run of kind `evaluation`, its store open, and what becomes its summary."""
    opened = store if isinstance(store, Store) else Store.open(store)
    token = current_store.set(opened)
    try:
        run = opened.start_run("evaluation", name, settings)
        with opened.lock_run(run), finishing(opened, run) as summary:
            yield opened, run, summary
    finally:
        current_store.reset(token)
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
