"""Graphs at work: many of them, each over its own questions, all at once.

LangGraph goes in steps, and waits for all nodes of one before it begins the next. What we run
ourselves does not wait so long: an agent is asked as soon as all that it hears have answered
(`_Ahead`), and its node finds the answers there, or on their way. So no model is loaded for agents
that nobody needs yet.
"""

from __future__ import annotations

import functools
from asyncio import Task, TaskGroup
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

from swarm.agents.shortening import Cuts
from swarm.graphs.graph import AgentGraph
from swarm.runtime.agenda import Agenda, Item
from swarm.runtime.compile import (
    PIECES,
    ColumnState,
    GraphRun,
    Node,
    Texts,
    ask,
    compile_graph,
    merge,
)
from swarm.runtime.garbage import sparing_the_old
from swarm.runtime.runtime import gather
from swarm.runtime.scheduler import Scheduler

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Shape = tuple[tuple[int, ...], ...]
"""Of a graph: for the agent at each position, the positions of those whose responses it reads."""


class Program:
    """A graph ready to be run over questions, every call on record."""

    def __init__(
        self,
        graph: AgentGraph,
        nodes: Mapping[str, Node],
        scheduler: Callable[[], Scheduler],
    ) -> None:
        """The same as for `compile_graph`."""
        self.graph = graph
        self.nodes = nodes
        self.scheduler = scheduler
        in_order = [nodes[agent.name] for agent in graph.agents]
        self.shape: Shape = tuple(
            tuple(nodes[name].item for name in node.predecessors) for node in in_order
        )
        self.agenda = Agenda(
            [Item(node.expert, before) for node, before in zip(in_order, self.shape, strict=True)]
        )

    async def run(
        self, questions: Sequence[str], cuts: Mapping[tuple[int, int], Cuts] | None = None
    ) -> list[tuple[range, GraphRun]]:
        """Which of the questions made up a column, and what its agents did.

        There is one column, or narrow ones where an engine wants that.

        Args:
            cuts: (agent's position, question) → how its prompt is shortened, and no other is.
                None: as it turns out to be needed.
        """
        [columns] = await run_together([(self, questions)], cuts=cuts)
        return columns

    def cuts_of(
        self, rows: range, cuts: Mapping[tuple[int, int], Cuts]
    ) -> dict[str, dict[int, Cuts]]:
        """Those of one column: agent → position in it → what is cut."""
        found: dict[str, dict[int, Cuts]] = {}
        for (agent, question), each in cuts.items():
            if question in rows:
                name = self.graph.agents[agent].name
                found.setdefault(name, {})[question - rows.start] = each
        return found

    @property
    def width(self) -> int | None:
        """How many questions a column should carry at most; None: all."""
        residency = self.scheduler().residency
        engines = [residency.engine(node.expert.engine) for node in self.nodes.values()]
        return min((engine.column for engine in engines if engine.column), default=None)

    async def stream(
        self, question: str, *, tokens: bool = False
    ) -> AsyncIterator[tuple[str, str]]:
        """(agent, response) as each agent answers one question; with `tokens` pieces of responses
        as they are written.

        Raises:
            EngineError: a call failed.
        """
        start: ColumnState = {"questions": [question], "responses": {}}
        config: Any = {**_limits(self.shape), "configurable": {PIECES: tokens}}
        step: Any
        async for mode, step in self._compiled.astream(
            start, config, stream_mode=["updates", "custom"]
        ):
            if mode == "custom":
                yield step
            elif not tokens:
                for state in step.values():
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


class _Ahead:
    """Asks the agents of one lane, each as soon as all that it hears have answered."""

    def __init__(self, lane: _Lane, tasks: TaskGroup) -> None:
        self._lane = lane
        self._group = tasks
        self._tasks: dict[int, Task[Texts]] = {}
        self._texts: dict[int, Texts] = {}

    def answers(self, position: int) -> Task[Texts]:
        """Those of the agent at `position`, who is asked now if it has not been yet."""
        if position not in self._tasks:
            self._tasks[position] = self._group.create_task(self._ask(position))
        return self._tasks[position]

    async def _ask(self, position: int) -> Texts:
        program, questions, run = self._lane
        node = program.nodes[program.graph.agents[position].name]
        heard = [self._texts[before] for before in program.shape[position]]
        texts = await ask(node, program.scheduler(), questions, heard, run)
        self._texts[position] = texts
        for follower in program.agenda.followers[position]:
            if all(before in self._texts for before in program.shape[follower]):
                self.answers(follower)
        return texts


class _LanesState(TypedDict, total=False):
    """The LangGraph state of many graphs of one shape."""

    lanes: _Lanes
    responses: Annotated[dict[int, list[Texts]], merge]
    """Position of an agent → the responses of each lane's agent there."""


class _Lanes(list[_Ahead]):
    """All lanes of a run. LangGraph shows its state to loggers: all prompts are in it."""

    def __repr__(self) -> str:
        return f"<{len(self)} lanes>"


async def run_together(
    work: Sequence[tuple[Program, Sequence[str]]],
    *,
    cuts: Mapping[tuple[int, int], Cuts] | None = None,
) -> list[list[tuple[range, GraphRun]]]:
    """Runs each program over its own questions, all at once; see `Program.run`.

    Compiling a LangGraph program takes milliseconds, and so does starting one. Graphs that differ
    in names only, as those of a policy do, share both.
    """
    columns: list[list[tuple[range, GraphRun]]] = []
    lanes: dict[tuple[int, Shape, int | None], list[_Lane]] = defaultdict(list)
    for program, questions in work:
        n, width = len(questions), program.width
        step = width or max(n, 1)
        rows = [range(start, min(start + step, n)) for start in range(0, n, step)]
        given = [None if cuts is None else program.cuts_of(row, cuts) for row in rows]
        columns.append([(row, GraphRun(cuts=c)) for row, c in zip(rows, given, strict=True)])
        shared = lanes[id(program.scheduler()), program.shape, width]
        shared += [
            _Lane(program, list(questions[row.start : row.stop]), run) for row, run in columns[-1]
        ]
    packets = [
        (shape, packet)
        for (_, shape, width), shared in lanes.items()
        for packet in _packets(shared, width)
    ]
    with sparing_the_old():
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
    with ExitStack() as joined:
        for lane in lanes:
            program = lane.program
            lane.run.participant = joined.enter_context(program.scheduler().join(program.agenda))
        try:
            async with TaskGroup() as tasks:
                ahead = _Lanes(_Ahead(lane, tasks) for lane in lanes)
                start: _LanesState = {"lanes": ahead, "responses": {}}
                state = await _compile_shape(shape).ainvoke(start, _limits(shape))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    end = lanes[0].program.graph.position(lanes[0].program.graph.end.name)
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
            asked = [lane.answers(position) for lane in state["lanes"]]
            return {"responses": {position: [await answers for answers in asked]}}

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
