"""A graph of agents becomes a LangGraph program over columns of questions.

The state holds lists, one entry a question: one `ainvoke` carries a whole split, and a single
question is a column of length one.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Messages, Response
from swarm.agents.prompt import Position
from swarm.agents.role import Role, find_role
from swarm.errors import EngineError
from swarm.graphs.graph import AgentGraph
from swarm.runtime.runtime import gather, run_sync
from swarm.runtime.scheduler import Answers, Outcome, Participant, Scheduler

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Texts = list[str | None]
"""One response a question; None where there is none because a call failed."""


Shape = tuple[tuple[int, ...], ...]
"""Of a graph: for the agent at each position, the positions of those whose responses it reads."""


def _merge(old: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
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


@dataclass
class GraphRun:
    """One execution of a graph: its place in the scheduler, and the log of its calls."""

    participant: Participant | None = None
    """Shared by all that are run in one LangGraph program: none goes on before the others do."""
    log: dict[str, AgentLog] = field(default_factory=dict)
    """By agent. An agent with no rows left to answer is logged, too."""
    answers: Texts = field(default_factory=list)
    """The end node's responses."""


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
        self.scheduler = scheduler
        end = graph.end.name
        self._acts = [
            _actor(nodes[agent.name], scheduler, is_end=agent.name == end) for agent in graph.agents
        ]
        self._shape: Shape = tuple(
            tuple(graph.position(name) for name in nodes[agent.name].predecessors)
            for agent in graph.agents
        )

    async def run(self, questions: Sequence[str]) -> list[tuple[range, GraphRun]]:
        """Which of the questions made up a column, and what its agents did.

        There is one column, or narrow ones where an engine wants that.
        """
        [columns] = await run_together([(self, questions)])
        return columns

    def _width(self) -> int | None:
        """How many questions a column should carry at most; None: all."""
        residency = self.scheduler().residency
        engines = [residency.engine(node.expert.engine) for node in self.nodes.values()]
        return min((engine.column for engine in engines if engine.column), default=None)

    async def stream(self, question: str) -> AsyncIterator[tuple[str, str]]:
        """(agent, response) as each agent answers one question.

        Raises:
            EngineError: a call failed.
        """
        async for update in self._compiled.astream(
            _start([question]), _limits(self._shape), stream_mode="updates"
        ):
            for state in update.values():
                for agent, (text,) in state["responses"].items():
                    yield agent, text

    @functools.cached_property
    def _compiled(self) -> CompiledStateGraph[ColumnState, None, ColumnState, ColumnState]:
        # Somebody's own program may call this one: its checkpoints are not for here.
        return compile_graph(
            self.graph, self.nodes, self.scheduler, awaited=True, checkpointer=False
        )


class _Lane(NamedTuple):
    """One graph's column on its way through a program that all graphs of its shape share."""

    program: Program
    questions: list[str]
    run: GraphRun

    async def act(self, position: int, responses: Mapping[int, list[Texts]], lane: int) -> Texts:
        """The responses of the agent at `position`; those of agents before it are given, each for
        all lanes, of which this is the one of that number."""
        program, agents = self.program, self.program.graph.agents
        heard = {agents[p].name: responses[p][lane] for p in program._shape[position]}
        token = current_run.set(self.run)
        try:
            update = await program._acts[position](
                {"questions": self.questions, "responses": heard}
            )
        finally:
            current_run.reset(token)
        return update["responses"][agents[position].name]


class _LanesState(TypedDict, total=False):
    """The LangGraph state of many graphs of one shape."""

    lanes: list[_Lane]
    responses: Annotated[dict[int, list[Texts]], _merge]
    """Position of an agent → the responses of each lane's agent there."""


async def run_together(
    work: Sequence[tuple[Program, Sequence[str]]],
) -> list[list[tuple[range, GraphRun]]]:
    """Runs each program over its own questions, all at once; see `Program.run`.

    Compiling a LangGraph program takes milliseconds, and so does starting one. Graphs that differ
    in names only, as those of a policy do, share both.
    """
    columns: list[list[tuple[range, GraphRun]]] = []
    lanes: dict[tuple[int, Shape, int | None], list[_Lane]] = defaultdict(list)
    for program, questions in work:
        n, width = len(questions), program._width()
        step = width or max(n, 1)
        rows = [range(start, min(start + step, n)) for start in range(0, n, step)]
        columns.append([(row, GraphRun()) for row in rows])
        shared = lanes[id(program.scheduler()), program._shape, width]
        shared += [
            _Lane(program, list(questions[row.start : row.stop]), run) for row, run in columns[-1]
        ]
    packets = [
        (shape, packet)
        for (_, shape, width), shared in lanes.items()
        for packet in _packets(shared, width)
    ]
    await gather(_run(shape, packet) for shape, packet in packets)
    return columns


def _packets(lanes: Sequence[_Lane], width: int | None) -> Iterator[Sequence[_Lane]]:
    """Lanes that go together: no more than `width` questions, which one slow answer holds up."""
    if width is None:
        yield lanes
        return
    packet: list[_Lane] = []
    room = width
    for lane in lanes:
        if len(lane.questions) > room and packet:
            yield packet
            packet, room = [], width
        packet.append(lane)
        room -= len(lane.questions)
    if packet:
        yield packet


async def _run(shape: Shape, lanes: Sequence[_Lane]) -> None:
    if not lanes:
        return
    program = lanes[0].program
    waves = [len(wave) * len(lanes) for wave in program.graph.waves]
    with program.scheduler().join(waves) as participant:
        for lane in lanes:
            lane.run.participant = participant
        start: _LanesState = {"lanes": list(lanes), "responses": {}}
        state = await _compile_shape(shape).ainvoke(start, _limits(shape))
    end = program.graph.position(program.graph.end.name)
    for lane, answers in zip(lanes, state["responses"][end], strict=True):
        lane.run.answers = answers


@functools.lru_cache(maxsize=256)
def _compile_shape(
    shape: Shape,
) -> CompiledStateGraph[_LanesState, None, _LanesState, _LanesState]:
    """The LangGraph program of all graphs of this shape; who plays in it comes with the lanes."""
    from langgraph.graph import END, START, StateGraph

    builder: StateGraph[_LanesState, None, _LanesState, _LanesState] = StateGraph(_LanesState)
    names = [f"agent {position}" for position in range(len(shape))]
    for position in range(len(shape)):

        async def act(state: _LanesState, position: int = position) -> _LanesState:
            lanes, responses = state["lanes"], state["responses"]
            answers = await gather(lane.act(position, responses, k) for k, lane in enumerate(lanes))
            return {"responses": {position: answers}}

        builder.add_node(names[position], act)
    for position, before in enumerate(shape):
        builder.add_edge([names[p] for p in before] or START, names[position])
    [end] = set(range(len(shape))) - {p for before in shape for p in before}
    builder.add_edge(names[end], END)
    # Somebody's own program may call this one: its checkpoints are not for here.
    return builder.compile(checkpointer=False)


def _limits(shape: Shape) -> Any:
    """LangGraph's: some versions stop after 25 steps if they aren't told otherwise, and somebody's
    own program that calls this one may have others."""
    return {"recursion_limit": len(shape) + 2, "max_concurrency": len(shape)}


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
        answers: Answers = await scheduler().ask(
            node.expert,
            prompts,
            draw=node.draw,
            participant=run.participant if run is not None else None,
        )
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
