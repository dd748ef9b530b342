"""A graph of agents becomes a LangGraph program over columns of questions.

The state holds lists, one entry a question: one `ainvoke` carries a whole split, and a single
question is a column of length one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Messages, Response
from swarm.agents.prompt import Position
from swarm.agents.role import Role, find_role
from swarm.errors import EngineError
from swarm.graphs.graph import AgentGraph
from swarm.runtime.garbage import sparing_the_old
from swarm.runtime.runtime import gather, run_sync
from swarm.runtime.scheduler import Answers, Outcome, Participant, Scheduler

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Texts = list[str | None]
"""One response a question; None where there is none because a call failed."""


def _merge(old: dict[str, Texts], new: dict[str, Texts]) -> dict[str, Texts]:
    return {**old, **new}


class ColumnState(TypedDict, total=False):
    """The LangGraph state of a running graph: give `questions`, get `answers`."""

    questions: list[str]
    """n questions."""
    responses: Annotated[dict[str, Texts], _merge]
    """Agent → its n responses."""
    answers: Texts
    """The end node's responses."""


class AgentLog(NamedTuple):
    """What one agent did: entries by position in the column."""

    prompts: Sequence[Messages]
    outcomes: Sequence[Outcome]
    keys: Sequence[bytes] | None
    cached: Sequence[bool]
    rows: Sequence[int] | None
    """Which questions these belong to; None: all, in order."""


@dataclass(repr=False)  # LangGraph calls it on every run, and all prompts are in it
class GraphRun:
    """One execution of a graph: its place in the scheduler, and the log of its calls."""

    participant: Participant | None = None
    log: dict[str, AgentLog] = field(default_factory=dict)
    """By agent. An agent with no rows left to answer is logged, too."""
    answers: Texts = field(default_factory=list)
    """The end node's responses."""


PIECES = "swarm_pieces"
"""The key in a LangGraph config under `configurable` that asks for pieces of responses, which then
are in the stream `custom` as (agent, piece)."""

current_run: ContextVar[GraphRun | None] = ContextVar("current_run", default=None)
"""Set around `ainvoke`; a graph that is run inside somebody's own LangGraph program has none."""


class _Node(NamedTuple):
    """An agent ready to be asked."""

    agent: str
    expert: Expert
    role: Role
    position: Position
    draw: int
    predecessors: tuple[str, ...]


def resolve(
    graph: AgentGraph, pool: Pool, roles: Mapping[str, Role] | None = None
) -> dict[str, _Node]:
    """The expert and role behind each agent's names.

    An expert that samples and plays several agents of a graph gives each a draw of its own.

    Raises:
        PoolError: the pool has no such expert, or nobody knows the role.
    """
    nodes: dict[str, _Node] = {}
    seen: Counter[str] = Counter()
    for agent in graph.agents:
        expert = pool[agent.expert]
        predecessors = tuple(p.name for p in graph.predecessors(agent.name))
        nodes[agent.name] = _Node(
            agent=agent.name,
            expert=expert,
            role=find_role(agent.role, {**pool.roles, **(roles or {})}),
            position=Position.of(
                has_predecessors=bool(predecessors), is_end=agent.name == graph.end.name
            ),
            draw=seen[expert.name] if expert.sampling.temperature > 0 else 0,
            predecessors=predecessors,
        )
        seen[expert.name] += 1
    return nodes


def compile_graph(
    graph: AgentGraph,
    nodes: Mapping[str, _Node],
    scheduler: Callable[[], Scheduler],
    *,
    awaited: bool = False,
    **options: Any,
) -> CompiledStateGraph[ColumnState, None, ColumnState, ColumnState]:
    """The LangGraph program of `graph`.

    Args:
        nodes: from `resolve`.
        scheduler: gives the one that calls go to, when a node runs.
        awaited: leaves out what only the synchronous methods need, which halves the overhead.
        options: passed on to LangGraph's `compile`, a checkpointer for instance.
    """
    from langchain_core.runnables import RunnableLambda
    from langgraph.graph import END, START, StateGraph

    builder: StateGraph[ColumnState, None, ColumnState, ColumnState] = StateGraph(ColumnState)
    names = _node_names(graph)
    for agent in graph.agents:
        act = _actor(nodes[agent.name], scheduler, is_end=agent.name == graph.end.name)

        def act_sync(state: ColumnState, act: Any = act) -> Any:
            return run_sync(act(state))

        node: Any = act if awaited else RunnableLambda(act_sync, afunc=act)
        builder.add_node(names[agent.name], node)
    for agent in graph.agents:
        before = [names[p.name] for p in graph.predecessors(agent.name)]
        if before:
            builder.add_edge(before, names[agent.name])
        else:
            builder.add_edge(START, names[agent.name])
    builder.add_edge(names[graph.end.name], END)
    # Some versions of LangGraph stop after 25 steps if they aren't told otherwise.
    return builder.compile(**options).with_config(recursion_limit=len(graph.agents) + 2)


class Program:
    """A graph ready to be run over questions, every call on record."""

    def __init__(
        self,
        graph: AgentGraph,
        nodes: Mapping[str, _Node],
        scheduler: Callable[[], Scheduler],
    ) -> None:
        """The same as for `compile_graph`."""
        self.graph = graph
        self.nodes = nodes
        self._scheduler = scheduler
        # Somebody's own program may call this one: its checkpoints and its limits are not for here.
        self._compiled = compile_graph(graph, nodes, scheduler, awaited=True, checkpointer=False)
        self._config: Any = {
            "recursion_limit": len(graph.agents) + 2,
            "max_concurrency": len(graph.agents),
        }

    async def run(self, questions: Sequence[str]) -> list[tuple[range, GraphRun]]:
        """Which of the questions made up a column, and what its agents did.

        There is one column, or narrow ones where an engine wants that.
        """
        residency = self._scheduler().residency
        engines = [residency.engine(node.expert.engine) for node in self.nodes.values()]
        n = len(questions)
        width = min((engine.column for engine in engines if engine.column), default=max(n, 1))
        columns = [range(start, min(start + width, n)) for start in range(0, n, width)]
        with sparing_the_old():
            runs = await gather(self._run([questions[i] for i in rows]) for rows in columns)
        return list(zip(columns, runs, strict=True))

    async def _run(self, questions: list[str]) -> GraphRun:
        with self._scheduler().join([len(wave) for wave in self.graph.waves]) as participant:
            run = GraphRun(participant)
            token = current_run.set(run)
            try:
                state = await self._compiled.ainvoke(_start(questions), self._config)
            finally:
                current_run.reset(token)
        run.answers = state["answers"]
        return run

    async def stream(
        self, question: str, *, tokens: bool = False
    ) -> AsyncIterator[tuple[str, str]]:
        """(agent, response) as each agent answers one question; with `tokens` pieces of responses
        as they are written.

        Raises:
            EngineError: a call failed.
        """
        config: Any = {**self._config, "configurable": {PIECES: tokens}}
        step: Any
        async for mode, step in self._compiled.astream(
            _start([question]), config, stream_mode=["updates", "custom"]
        ):
            if mode == "custom":
                yield step
            elif not tokens:
                for state in step.values():
                    for agent, (text,) in state["responses"].items():
                        yield agent, text


def _start(questions: list[str]) -> ColumnState:
    return {"questions": questions, "responses": {}}


def _actor(
    node: _Node, scheduler: Callable[[], Scheduler], *, is_end: bool
) -> Callable[[ColumnState], Coroutine[Any, Any, ColumnState]]:
    style = node.expert.style

    async def act(state: ColumnState) -> ColumnState:
        questions: Sequence[str] = state["questions"]
        responses = state.get("responses") or {}
        previous: list[Any] = [responses[name] for name in node.predecessors]
        # Where a predecessor has no response the trace has failed: asking further would cost only.
        rows: list[int] | None = None
        if any(None in column for column in previous):
            rows = [i for i, each in enumerate(zip(*previous, strict=True)) if None not in each]
            questions = [questions[i] for i in rows]
            previous = [[column[i] for i in rows] for column in previous]
        prompts = style.messages(node.role, node.position, questions, previous)
        run = current_run.get()
        say = _pieces_of(node.agent) if run is None and len(questions) == 1 else None
        answers: Answers = await scheduler().ask(
            node.expert,
            prompts,
            draw=node.draw,
            participant=run.participant if run is not None else None,
            say=say,
        )
        if say is not None:
            say.end(answers.outcomes[0])
        texts: Texts = [o.text if type(o) is Response else None for o in answers.outcomes]
        if run is not None:
            run.log[node.agent] = AgentLog(prompts, *answers, rows)
        else:
            _raise_if_all_failed(answers.outcomes)
        if rows is not None:
            spread: Texts = [None] * len(state["questions"])
            for i, text in zip(rows, texts, strict=True):
                spread[i] = text
            texts = spread
        update: ColumnState = {"responses": {node.agent: texts}}
        if is_end:
            update["answers"] = texts
        return update

    return act


class _Pieces:
    """Writes what one agent says to LangGraph's stream."""

    def __init__(self, agent: str, write: Callable[[Any], None]) -> None:
        self._agent = agent
        self._write = write
        self._said = False

    def __call__(self, piece: str) -> None:
        self._said = True
        self._write((self._agent, piece))

    def end(self, outcome: Outcome) -> None:
        """An answer that did not come in pieces is one."""
        if isinstance(outcome, Response) and outcome.text and not self._said:
            self(outcome.text)


def _pieces_of(agent: str) -> _Pieces | None:
    """If they are asked for."""
    from langgraph.config import get_config, get_stream_writer

    if get_config().get("configurable", {}).get(PIECES):
        return _Pieces(agent, get_stream_writer())
    return None


def _raise_if_all_failed(outcomes: Sequence[Outcome]) -> None:
    """In somebody's own program nobody reads our log: there an error must be seen."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, EngineError)]
    if errors and len(errors) == len(outcomes):
        raise errors[0]


def _node_names(graph: AgentGraph) -> dict[str, str]:
    """Agent → name of its node.

    LangGraph keeps ``:``, ``|``, leading ``__`` and the keys of the state for itself.
    """
    names: dict[str, str] = {}
    taken = set(ColumnState.__annotations__)
    for agent in graph.agents:
        name = agent.name.replace(":", "_").replace("|", "_")
        while name in taken or name.startswith("__"):
            name = f"agent {name}"
        names[agent.name] = name
        taken.add(name)
    return names
