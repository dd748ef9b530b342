"""A graph of agents becomes a LangGraph program over columns of questions.

The state holds lists, one entry a question: one `ainvoke` carries a whole split, and a single
question is a column of length one. How we run graphs ourselves is in `program.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Messages, Response, request_key
from swarm.agents.prompt import WHOLE, Position
from swarm.agents.role import Role, find_role
from swarm.agents.shortening import Cuts
from swarm.errors import EngineError
from swarm.graphs.graph import AgentGraph
from swarm.runtime.columns import Answers, Outcome
from swarm.runtime.fitting import Column, Fitted, fit
from swarm.runtime.runtime import run_sync
from swarm.runtime.scheduler import Participant, Scheduler

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Texts = list[str | None]
"""One response a question; None where there is none because a call failed."""


def merge(old: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    """How LangGraph puts the responses of several nodes together."""
    return {**old, **new}


class ColumnState(TypedDict, total=False):
    """The LangGraph state of a running graph: give `questions`, get `answers`."""

    questions: list[str]
    """n questions."""
    responses: Annotated[dict[str, Texts], merge]
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
    cuts: Mapping[int, Cuts] = WHOLE
    """How prompts were shortened: position among these → what was cut."""


@dataclass(eq=False)
class GraphRun:
    """One execution of a graph over a column: its place in the scheduler, and what was done."""

    participant: Participant | None = None
    cuts: Mapping[str, Mapping[int, Cuts]] | None = None
    """How prompts are shortened: agent → position in the column → what is cut. None: as it turns
    out to be needed."""
    log: dict[str, AgentLog] = field(default_factory=dict)
    """By agent. An agent with no rows left to answer is logged, too."""
    answers: Texts = field(default_factory=list)
    """The end node's responses."""


PIECES = "swarm_pieces"
"""The key in a LangGraph config under `configurable` that asks for pieces of responses, which then
are in the stream `custom` as (agent, piece)."""


class Node(NamedTuple):
    """An agent ready to be asked; see `resolve`."""

    agent: str
    expert: Expert
    role: Role
    position: Position
    draw: int
    predecessors: tuple[str, ...]
    item: int
    """Its position among the graph's agents."""
    oldest_first: tuple[int, ...]
    """Positions in `predecessors`, by when they answer."""


def resolve(
    graph: AgentGraph, pool: Pool, roles: Mapping[str, Role] | None = None
) -> dict[str, Node]:
    """The expert and role behind each agent's names.

    An expert that samples and plays several agents of a graph gives each a draw of its own.

    Raises:
        PoolError: the pool has no such expert, or nobody knows the role.
    """
    nodes: dict[str, Node] = {}
    seen: Counter[str] = Counter()
    moments = {agent.name: at for at, agent in enumerate(graph.order)}
    for item, agent in enumerate(graph.agents):
        expert = pool[agent.expert]
        predecessors = tuple(p.name for p in graph.predecessors(agent.name))
        nodes[agent.name] = Node(
            agent=agent.name,
            expert=expert,
            role=find_role(agent.role, {**pool.roles, **(roles or {})}),
            position=Position.of(
                has_predecessors=bool(predecessors), is_end=agent.name == graph.end.name
            ),
            draw=seen[expert.name] if expert.sampling.temperature > 0 else 0,
            predecessors=predecessors,
            item=item,
            oldest_first=_by_moment(predecessors, moments),
        )
        seen[expert.name] += 1
    return nodes


def _by_moment(agents: Sequence[str], moments: Mapping[str, int]) -> tuple[int, ...]:
    """Positions of `agents`, by when they answer."""
    return tuple(sorted(range(len(agents)), key=lambda k: moments[agents[k]]))


def compile_graph(
    graph: AgentGraph,
    nodes: Mapping[str, Node],
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


def _actor(
    node: Node, scheduler: Callable[[], Scheduler], *, is_end: bool
) -> Callable[[ColumnState], Coroutine[Any, Any, ColumnState]]:
    async def act(state: ColumnState) -> ColumnState:
        responses = state.get("responses") or {}
        previous = [responses[name] for name in node.predecessors]
        questions = state["questions"]
        say = _pieces_of(node.agent) if len(questions) == 1 else None
        texts = await ask(node, scheduler(), questions, previous, say=say)
        update: ColumnState = {"responses": {node.agent: texts}}
        if is_end:
            update["answers"] = texts
        return update

    return act


async def ask(
    node: Node,
    scheduler: Scheduler,
    questions: Sequence[str],
    previous: Sequence[Texts],
    run: GraphRun | None = None,
    say: _Pieces | None = None,
) -> Texts:
    """What an agent answers who hears `previous`; it is logged if there is a run. `say` is told
    pieces of the answer to a single question."""
    # Where a predecessor has no response the trace has failed: asking further would cost only.
    rows: list[int] | None = None
    asked, heard = questions, list[Any](previous)
    if any(None in column for column in previous):
        rows = [i for i, each in enumerate(zip(*previous, strict=True)) if None not in each]
        asked = [questions[i] for i in rows]
        heard = [[column[i] for i in rows] for column in previous]
    style = node.expert.style
    column = Column(style, node.role, node.position, asked, heard, node.oldest_first)
    if run is not None and run.cuts is not None:
        given = run.cuts.get(node.agent, WHOLE)
        cuts = {k: given[row] for k, row in enumerate(rows or range(len(asked))) if row in given}
        fitted = Fitted(column.prompts(cuts), cuts)
    else:
        engine = scheduler.residency.engine(node.expert.engine)
        fitted = await fit(engine, node.expert, column)
    participant = run.participant if run is not None else None
    answers = await ask_fitted(
        scheduler,
        node.expert,
        fitted,
        draw=node.draw,
        participant=participant,
        item=node.item,
        say=say,
    )
    if say is not None and answers.outcomes:
        say.end(answers.outcomes[0])
    texts: Texts = [o.text if type(o) is Response else None for o in answers.outcomes]
    if run is not None:
        run.log[node.agent] = AgentLog(fitted.prompts, *answers, rows, fitted.cuts)
    else:
        _raise_if_all_failed(answers.outcomes)
    if rows is not None:
        spread: Texts = [None] * len(questions)
        for i, text in zip(rows, texts, strict=True):
            spread[i] = text
        texts = spread
    return texts


async def ask_fitted(
    scheduler: Scheduler, expert: Expert, fitted: Fitted, *, draw: int = 0, **how: Any
) -> Answers:
    """Asks for all prompts but what is refused; that is answered with its error. `how` is what
    `Scheduler.ask` takes."""
    prompts, _, refused = fitted
    if not refused:
        return await scheduler.ask(expert, prompts, draw=draw, **how)
    taken = [prompt for i, prompt in enumerate(prompts) if i not in refused]
    answers = await scheduler.ask(expert, taken, draw=draw, **how)
    keys, outcomes, cached = None, iter(answers.outcomes), iter(answers.cached)
    if answers.keys is not None:
        keys = [request_key(expert.fingerprint, prompt, draw) for prompt in prompts]
    every = range(len(prompts))
    return Answers(
        [refused[i] if i in refused else next(outcomes) for i in every],
        keys,
        [False if i in refused else next(cached) for i in every],
    )


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
