"""The usual graphs, made from experts' names.

Everywhere the last agent is the end node, agents are named after their experts (the same expert may
occur several times: ``minus``, ``minus-2``, …), and `roles` is one role for all or one an expert.
All raise `GraphError` for empty input or counts that don't match.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, product

from swarm.errors import GraphError
from swarm.graphs.graph import DEFAULT_ROLE, Agent, AgentGraph, name_agents

Roles = str | Sequence[str]


def single(expert: str, *, role: str = DEFAULT_ROLE) -> AgentGraph:
    """One agent that answers alone."""
    return AgentGraph(agents=name_agents([expert], role))


def chain(experts: Sequence[str], *, roles: Roles = DEFAULT_ROLE) -> AgentGraph:
    """Each agent reads the one before it."""
    agents = name_agents(experts, roles)
    return _graph(agents, pairwise(agents))


def star(experts: Sequence[str], *, roles: Roles = DEFAULT_ROLE) -> AgentGraph:
    """The last agent reads all the others, which answer alone."""
    agents = name_agents(experts, roles)
    return _graph(agents, ((agent, agents[-1]) for agent in agents[:-1]))


def tree(experts: Sequence[str], *, branching: int = 2, roles: Roles = DEFAULT_ROLE) -> AgentGraph:
    """A complete in-tree: every agent reads up to `branching` others, the last one is the root."""
    if branching < 1:
        raise GraphError(f"`branching` is {branching}: every agent reads at least 1 other")
    agents = name_agents(experts, roles)
    from_root = agents[::-1]
    return _graph(
        agents, ((from_root[i], from_root[(i - 1) // branching]) for i in range(1, len(agents)))
    )


def layered(layers: Sequence[Sequence[str]], *, roles: Roles = DEFAULT_ROLE) -> AgentGraph:
    """Every agent of a layer reads every agent of the layer before; the last layer is one agent.

    `roles` given one an expert are in the order of the layers, end to end.
    """
    if isinstance(layers, str) or any(isinstance(layer, str) or not layer for layer in layers):
        raise GraphError(
            f"`layers` is {layers!r}: give a list of lists of experts, none of them empty"
        )
    agents = name_agents([expert for layer in layers for expert in layer], roles)
    rest = iter(agents)
    groups = [[next(rest) for _ in layer] for layer in layers]
    return _graph(agents, (edge for pair in pairwise(groups) for edge in product(*pair)))


def complete(experts: Sequence[str], *, roles: Roles = DEFAULT_ROLE) -> AgentGraph:
    """Every agent reads all before it."""
    agents = name_agents(experts, roles)
    return _graph(agents, ((u, v) for i, v in enumerate(agents) for u in agents[:i]))


def debate(
    experts: Sequence[str],
    rounds: int,
    judge: str,
    *,
    roles: Roles = DEFAULT_ROLE,
    judge_role: str = "judge",
) -> AgentGraph:
    """All experts answer `rounds` times, reading the whole round before; the judge reads the last.

    Agents carry their round: ``minus@1``, ``minus@2``, …; `roles` are the same in every round.
    """
    if rounds < 1:
        raise GraphError(f"`rounds` is {rounds}: a debate has at least 1")
    debaters = name_agents(experts, roles)
    if not debaters:
        raise GraphError("a debate without experts leaves the judge nothing to read: give some")
    groups = [
        tuple(agent.model_copy(update={"name": f"{agent.name}@{k}"}) for agent in debaters)
        for k in range(1, rounds + 1)
    ]
    groups.append((Agent(name=judge, expert=judge, role=judge_role),))
    agents = tuple(agent for group in groups for agent in group)
    return _graph(agents, (edge for pair in pairwise(groups) for edge in product(*pair)))


def _graph(agents: tuple[Agent, ...], edges: Iterable[tuple[Agent, Agent]]) -> AgentGraph:
    return AgentGraph(agents=agents, edges=tuple((u.name, v.name) for u, v in edges))
