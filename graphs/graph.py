"""`AgentGraph`: which agents there are and who hears whom; checked once, never changed."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from swarm.errors import (
    CycleError,
    DuplicateError,
    EndNodeError,
    GraphError,
    TooLargeError,
    UnknownAgentError,
    did_you_mean,
)

if TYPE_CHECKING:
    import networkx as nx

MAX_AGENTS = 1000
"""More agents than this are refused: such a graph is a mistake, or an attack."""

DEFAULT_ROLE = "solver"

# Names go into terminals, XML and prompts: what none of these can show is refused at the door.
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def _showable(name: str) -> str:
    if not name.strip() or _UNSHOWABLE.search(name):
        raise ValueError("a name has something to see in it and no control characters")
    return name


Name = Annotated[str, AfterValidator(_showable)]
Edge = tuple[str, str]


class _Frozen(BaseModel):
    """Immutable, strict about keys, and wrong in this package's errors instead of pydantic's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_as_graph_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise _graph_error(cls, error) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy. Unlike pydantic's, an updated one is checked like any other."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **(update or {})})


class Agent(_Frozen):
    """A role played by an expert; a node of a graph."""

    name: Name
    """What edges refer to; unique within its graph."""
    expert: Name
    """The name of an expert of the pool; several agents may be played by one expert."""
    role: Name = DEFAULT_ROLE
    """The name of a role of the role library."""


class AgentGraph(_Frozen):
    """A directed acyclic graph of agents with one end node, whose response is the answer.

    An edge ``(u, v)`` sends the response of `u` to `v`. The order of `agents` is part of the graph:
    an agent reads its predecessors' responses in that order. The order in which edges are given is
    not: they are kept sorted, so that equal graphs are equal objects with equal digests.

    Raises (on construction): `GraphError` if there is no agent or a field is malformed,
    `TooLargeError` beyond `MAX_AGENTS`, `DuplicateError` for a name or an edge given twice,
    `UnknownAgentError` for an edge to an agent that isn't there, `CycleError`, and `EndNodeError`
    unless exactly one agent has no successors. (In an acyclic graph every agent then reaches it.)
    """

    agents: tuple[Agent, ...]
    edges: tuple[Edge, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        # The only write to the frozen model, before anybody has seen it.
        self.__dict__["edges"] = self._structure.edges
        return self

    @cached_property
    def _structure(self) -> _Structure:
        return _structure(self.agents, self.edges)

    def __getstate__(self) -> dict[Any, Any]:
        # Without the cached values: equal graphs pickle to equal bytes, whatever was asked of them.
        fields = {name: self.__dict__[name] for name in type(self).model_fields}
        return {**super().__getstate__(), "__dict__": fields}

    def agent(self, name: str) -> Agent:
        """The agent of that name; `UnknownAgentError` if there is none."""
        return self.agents[self.position(name)]

    def position(self, name: str) -> int:
        """Where the agent stands in `agents`; `UnknownAgentError` if it doesn't."""
        try:
            return self._structure.position[name]
        except KeyError:
            raise _unknown(name, self._structure.position) from None

    def predecessors(self, name: str) -> tuple[Agent, ...]:
        """The agents whose responses `name` reads, in the order of `agents`."""
        return tuple(self.agents[u] for u in self._structure.predecessors[self.position(name)])

    def successors(self, name: str) -> tuple[Agent, ...]:
        """The agents that read the response of `name`, in the order of `agents`."""
        return tuple(self.agents[v] for v in self._structure.successors[self.position(name)])

    @property
    def end(self) -> Agent:
        """The one agent without successors; its response is the answer."""
        return self.waves[-1][0]

    @cached_property
    def waves(self) -> tuple[tuple[Agent, ...], ...]:
        """Agents by the earliest moment they can answer: all predecessors are in earlier waves."""
        return tuple(tuple(self.agents[i] for i in wave) for wave in self._structure.waves)

    @property
    def order(self) -> tuple[Agent, ...]:
        """A topological order, wave by wave, within a wave in the order of `agents`."""
        return tuple(agent for wave in self.waves for agent in wave)

    @property
    def depth(self) -> int:
        """The number of agents on the longest path."""
        return len(self.waves)

    @property
    def experts(self) -> tuple[str, ...]:
        """The name of the expert at each position."""
        return tuple(agent.expert for agent in self.agents)

    @cached_property
    def digest(self) -> bytes:
        """Content address, 32 bytes: the same for equal graphs in every process and version."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=32).digest()

    def with_experts(self, experts: Mapping[str, str] | Sequence[str]) -> AgentGraph:
        """The same graph with other experts in it; names, roles and edges stay.

        `experts` is one expert a position, or a mapping from some agents' names to their experts.
        Raises `GraphError` for the wrong number of experts, `UnknownAgentError` for unknown names.
        """
        if isinstance(experts, Mapping):
            assigned = list(self.experts)
            for name, expert in experts.items():
                assigned[self.position(name)] = expert
        elif isinstance(experts, str) or len(experts) != len(self.agents):
            raise GraphError(
                f"{reprlib.repr(experts)} assigns experts to a graph of {len(self.agents)} agents: "
                "give a sequence of one expert each, or a mapping from agents' names to experts"
            )
        else:
            assigned = list(experts)
        agents = [
            Agent(name=agent.name, expert=expert, role=agent.role)
            for agent, expert in zip(self.agents, assigned, strict=True)
        ]
        return AgentGraph(agents=tuple(agents), edges=self.edges)

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON that `from_json` reads; without `indent` it is canonical: equal for equal graphs."""
        content = {
            "agents": [{"name": a.name, "expert": a.expert, "role": a.role} for a in self.agents],
            "edges": self.edges,
        }
        separators = (",", ":") if indent is None else None
        return json.dumps(content, indent=indent, separators=separators)

    @classmethod
    def from_json(cls, text: str | bytes) -> AgentGraph:
        """Read what `to_json` wrote, or anybody else; raises like the constructor."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _graph_error(cls, error) from None

    def to_networkx(self) -> nx.DiGraph[str]:
        """Nodes are names with the attributes `expert` and `role`, in the order of `agents`."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for agent in self.agents:
            graph.add_node(agent.name, expert=agent.expert, role=agent.role)
        graph.add_edges_from(self.edges)
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph[str]) -> AgentGraph:
        """A directed graph whose nodes have the attribute `expert` and may have `role`.

        The order of its nodes becomes the order of `agents`; other attributes are left behind.
        Raises like the constructor.
        """
        if not graph.is_directed():
            raise GraphError("an undirected graph doesn't say who hears whom: use `DiGraph`")
        agents = [
            {"name": name} | {key: data[key] for key in ("expert", "role") if key in data}
            for name, data in graph.nodes(data=True)
        ]
        return cls.model_validate({"agents": agents, "edges": list(graph.edges())})

    def to_mermaid(self) -> str:
        """Mermaid flowchart source; see `swarm.graphs.draw.mermaid`."""
        from swarm.graphs import draw

        return draw.mermaid(self)

    def to_text(self, *, ascii_only: bool = False) -> str:
        """A tree for terminals, the end node on top; see `swarm.graphs.draw.text`."""
        from swarm.graphs import draw

        return draw.text(self, ascii_only=ascii_only)

    def to_svg(
        self, path: Path | str | None = None, *, direction: Literal["right", "down"] | None = None
    ) -> str:
        """An SVG picture, also written to `path` if given; see `swarm.graphs.draw.svg`."""
        from swarm.graphs import draw

        picture = draw.svg(self, direction=direction)
        if path is not None:
            Path(path).write_text(picture, encoding="utf-8")
        return picture

    def to_png(
        self, path: Path | str, *, direction: Literal["right", "down"] | None = None
    ) -> None:
        """The same picture as `to_svg`; needs matplotlib, else `MissingPackageError`."""
        from swarm.graphs import draw

        draw.png(self, path, direction=direction)


def name_agents(
    experts: Sequence[str], roles: str | Sequence[str] = DEFAULT_ROLE
) -> tuple[Agent, ...]:
    """An agent for each expert, named after it; later ones of the same name get ``-2``, ``-3``, …

    `roles` is one role for all, or one an expert. Raises `GraphError` where the counts differ.
    """
    if isinstance(experts, str):
        raise GraphError(f"`{experts}` is one expert; give a list of experts: [{experts!r}]")
    each = [roles] * len(experts) if isinstance(roles, str) else list(roles)
    if len(each) != len(experts):
        raise GraphError(
            f"{len(each)} roles for {len(experts)} experts: give one role for all, or one an expert"
        )
    return tuple(
        Agent(name=name, expert=expert, role=role)
        for name, expert, role in zip(_unique(experts), experts, each, strict=True)
    )


def _unique(names: Iterable[str]) -> list[str]:
    taken: dict[str, int] = {}
    unique = []
    for name in names:
        candidate = name
        while candidate in taken:
            taken[name] += 1
            candidate = f"{name}-{taken[name]}"
        taken[candidate] = 1
        unique.append(candidate)
    return unique


class _Structure(NamedTuple):
    """What the checks work out, agents by position."""

    edges: tuple[Edge, ...]
    position: dict[str, int]
    predecessors: list[list[int]]
    successors: list[list[int]]
    waves: list[list[int]]


def _structure(agents: tuple[Agent, ...], edges: tuple[Edge, ...]) -> _Structure:
    """Every rule of a graph, in time linear in agents and edges (but for sorting the edges)."""
    position = _positions(agents)
    names = list(position)
    pairs = _sorted_pairs(edges, position)
    predecessors: list[list[int]] = [[] for _ in agents]
    successors: list[list[int]] = [[] for _ in agents]
    for u, v in pairs:
        successors[u].append(v)
        predecessors[v].append(u)

    waves = _waves(predecessors, successors)
    if sum(map(len, waves)) < len(agents):
        cycle = [names[i] for i in _cycle(predecessors, waves)]
        raise CycleError(
            f"the edges form a cycle, {_path([*cycle, cycle[0]])}: nobody in it could answer "
            "first; remove one of these edges"
        )
    ends = [name for name, to in zip(names, successors, strict=True) if not to]
    if len(ends) > 1:
        raise EndNodeError(
            f"{len(ends)} agents have no successors, {_listed(ends)}: the answer is one agent's "
            "response, so every other agent needs an edge that leads on towards it"
        )
    return _Structure(
        tuple((names[u], names[v]) for u, v in pairs), position, predecessors, successors, waves
    )


def _positions(agents: tuple[Agent, ...]) -> dict[str, int]:
    if not agents:
        raise GraphError("a graph without agents can't answer: give at least one")
    if len(agents) > MAX_AGENTS:
        raise TooLargeError(f"{len(agents)} agents: a graph has at most {MAX_AGENTS}")
    position: dict[str, int] = {}
    for agent in agents:
        if agent.name in position:
            raise DuplicateError(
                f"two agents are called `{agent.name}`: names are unique in a graph, rename one"
            )
        position[agent.name] = len(position)
    return position


def _sorted_pairs(edges: tuple[Edge, ...], position: dict[str, int]) -> list[tuple[int, int]]:
    pairs = []
    for u, v in edges:
        if u == v and u in position:
            raise CycleError(f"the edge {_path([u, v])} leads from an agent to itself: remove it")
        try:
            pairs.append((position[u], position[v]))
        except KeyError as missing:
            raise _unknown(missing.args[0], position, f"in the edge {_path([u, v])} ") from None
    pairs.sort()
    for pair, following in pairwise(pairs):
        if pair == following:
            names = list(position)
            raise DuplicateError(
                f"the edge {_path([names[i] for i in pair])} is given twice: once says it all"
            )
    return pairs


def _waves(predecessors: list[list[int]], successors: list[list[int]]) -> list[list[int]]:
    """Kahn's algorithm, layer by layer; agents on or behind a cycle are in no wave."""
    missing = [len(before) for before in predecessors]
    wave = [i for i, count in enumerate(missing) if not count]
    waves = []
    while wave:
        waves.append(wave)
        ready = []
        for u in wave:
            for v in successors[u]:
                missing[v] -= 1
                if not missing[v]:
                    ready.append(v)
        wave = sorted(ready)
    return waves


def _cycle(predecessors: list[list[int]], waves: list[list[int]]) -> list[int]:
    """One cycle in the direction of its edges, from its first agent on."""
    answered = {i for wave in waves for i in wave}
    # Who is in no wave waits for somebody in no wave: walking back must come round.
    node = next(i for i in range(len(predecessors)) if i not in answered)
    walk: dict[int, int] = {}
    while node not in walk:
        walk[node] = len(walk)
        node = next(u for u in predecessors[node] if u not in answered)
    cycle = list(walk)[walk[node] :][::-1]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def _unknown(name: str, known: Iterable[str], where: str = "") -> UnknownAgentError:
    known = list(known)
    return UnknownAgentError(
        f"`{name}` {where}is no agent of this graph{did_you_mean(name, known)}: "
        f"it has {_listed(known)}"
    )


def _path(names: list[str]) -> str:
    shown = names if len(names) <= 12 else [*names[:6], "…", *names[-5:]]
    return "`" + " -> ".join(shown) + "`"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"`{name}`" for name in names[:8]) + more


def _graph_error(model: type[BaseModel], error: ValidationError) -> GraphError:
    """The first thing pydantic found, in this package's words."""
    first = error.errors(include_url=False, include_context=False)[0]
    noun = "agent" if model is Agent else "graph"
    where = ".".join(map(str, first["loc"]))
    value = reprlib.repr(first["input"])
    fields = list(model.model_fields)
    match first["type"]:
        case "extra_forbidden":
            return GraphError(
                f"`{where}` is no key of the {noun}{did_you_mean(where, fields)}: "
                f"its keys are {_listed(fields)}"
            )
        case "missing":
            return GraphError(f"{value} is no {noun}: it needs the key `{where}`")
        case "json_invalid":
            return GraphError(f"not JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
        case _:
            rule = first["msg"].removeprefix("Value error, ")
            return GraphError(f"`{where or noun}` can't be {value}: {rule}")
