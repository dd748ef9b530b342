"""The collaboration modes of MasRouter as graphs of this project.

MasRouter, arXiv 2502.11133, section 3: agents answer in the pattern of the mode, and a decision
agent, played by the most drawn model, reads what they came to and gives the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise, product
from typing import NamedTuple

from swarm.agents.role import STEP_BY_STEP
from swarm.graphs.graph import Agent, AgentGraph, Edge, name_agents

Wiring = Callable[[Sequence[str]], tuple[list[Edge], list[str]]]
"""Names of the agents, round by round → edges among them, and those whom the decision agent
reads."""


class Mode(NamedTuple):
    """How agents work together."""

    name: str
    description: str
    """What its embedding is made of, beside its name."""
    wiring: Wiring
    rounds: int = 1
    """How often every agent speaks."""
    aloud: bool = False
    """Whether agents are told to think step by step."""


def _apart(names: Sequence[str]) -> tuple[list[Edge], list[str]]:
    return [], list(names)


def _chain(names: Sequence[str]) -> tuple[list[Edge], list[str]]:
    return list(pairwise(names)), list(names)


def _complete(names: Sequence[str]) -> tuple[list[Edge], list[str]]:
    return list(combinations(names, 2)), list(names)


def _debate(names: Sequence[str]) -> tuple[list[Edge], list[str]]:
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    return list(product(first, second)), list(second)


def _reflection(names: Sequence[str]) -> tuple[list[Edge], list[str]]:
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    return list(zip(first, second, strict=True)), list(second)


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("io", "Agents answer directly, each for itself, without showing steps.", _apart),
        Mode(
            "cot",
            "Agents reason step by step before they answer, each for itself.",
            _apart,
            aloud=True,
        ),
        Mode(
            "chain",
            "Agents work one after the other; each takes over the result of the one before it.",
            _chain,
        ),
        Mode(
            "full_connected",
            "Agents work one after the other; each sees the results of all before it.",
            _complete,
        ),
        Mode(
            "debate",
            "Agents answer, read all others' answers, and answer again.",
            _debate,
            rounds=2,
        ),
        Mode(
            "reflection",
            "Agents answer, look at their own answers critically, and answer again.",
            _reflection,
            rounds=2,
        ),
    )
}


def decision_expert(experts: Sequence[str]) -> str:
    """The most drawn one, the first of several."""
    [(name, _)] = Counter(experts).most_common(1)
    return name


def mode_graph(
    mode: Mode,
    experts: Sequence[str],
    roles: Sequence[str],
    *,
    decision_role: str = "judge",
    decide_alone: bool = False,
) -> AgentGraph:
    """The graph of one question.

    Args:
        experts: one an agent.
        roles: one an agent.
        decide_alone: whether there is a decision agent also where it would read one response only,
            as published. It can but repeat that, so without it that response is the answer.
    """
    played = [role + STEP_BY_STEP if mode.aloud else role for role in roles]
    names = [
        name if mode.rounds == 1 else f"{name}@{turn + 1}"
        for turn in range(mode.rounds)
        for name in (agent.name for agent in name_agents(experts))
    ]
    edges, read = mode.wiring(names)
    agents = [
        Agent(name=name, expert=experts[i % len(experts)], role=played[i % len(experts)])
        for i, name in enumerate(names)
    ]
    if len(read) > 1 or decide_alone:
        end = "decision"
        while end in names:
            end += "'"
        agents.append(Agent(name=end, expert=decision_expert(experts), role=decision_role))
        edges += [(name, end) for name in read]
    return AgentGraph(agents=tuple(agents), edges=tuple(edges))
