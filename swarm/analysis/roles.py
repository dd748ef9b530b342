"""Heterogeneity of roles: what each agent does to the answer that is passed on to it.

In Heterogeneous Swarms (arXiv 2502.04510, the analysis of roles) an LLM reads each response and
judges whether the agent divides the problem, refines, gives feedback, or is irrelevant. Here nobody
judges: a response is scored as if it were the answer and compared with the responses that the agent
read. So this sees what an agent does to the answer, not how; an agent whose work is only a part of
the answer (it plans, or does one step of many) "rewrites".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from swarm.graphs.graph import Agent
from swarm.optimizers.searchers.base import Array
from swarm.store import TraceView

ACTS = {
    "originates": "reads nobody",
    "corrects": "scores higher than every response it read",
    "spoils": "scores lower than the best response it read",
    "passes on": "says what one of the responses it read says, and scores no worse than the best",
    "rewrites": "says something else that scores the same as the best it read",
}

Score = Callable[[TraceView, str], float]
"""What a response would score as the answer to its trace's question."""


class AgentActs(NamedTuple):
    """What one agent did, over all questions that it answered."""

    agent: Agent
    acts: Mapping[str, int]
    """By the names in `ACTS`; without scores "corrects" and "spoils" count as "rewrites"."""
    accuracy: float | None
    """The mean score of its responses; None without scores."""
    entropy: float
    """Of its acts, in bits: 0 for an agent that always does the same."""


class Heterogeneity(NamedTuple):
    """What all agents did."""

    agents: tuple[AgentActs, ...]
    """In an order in which they can answer."""
    entropy: float
    """Of all agents' acts together, in bits."""
    divergence: float
    """Jensen-Shannon divergence of the agents' acts, in bits: 0 if all do the same in the same
    proportions; at most log2 of the number of kinds of acts, or of agents if that is less."""


def role_heterogeneity(traces: Iterable[TraceView], score: Score | None = None) -> Heterogeneity:
    """What the agents of one graph did in its traces. Calls that failed do not count."""
    counts: dict[Agent, Counter[str]] = {}
    scores: dict[Agent, list[float]] = {}
    for trace in traces:
        responses = {
            call.agent.name: call.answer.response.text.strip()
            for call in trace.calls
            if call.answer is not None
        }
        for agent in trace.graph.order:
            counts.setdefault(agent, Counter())
            scores.setdefault(agent, [])
        worth: dict[str, float] = {}
        if score is not None:
            worth = {name: score(trace, text) for name, text in responses.items()}
        for agent in trace.graph.order:
            if agent.name not in responses:
                continue
            read = [a.name for a in trace.graph.predecessors(agent.name) if a.name in responses]
            counts[agent][_act(agent.name, read, responses, worth)] += 1
            if score is not None:
                scores[agent].append(worth[agent.name])
    shares = np.array([_shares(counts[agent]) for agent in counts if counts[agent].total()])
    mixed = _entropy(shares.mean(axis=0)) if len(shares) else 0.0
    each = [_entropy(row) for row in shares]
    return Heterogeneity(
        agents=tuple(
            AgentActs(
                agent=agent,
                acts={act: counts[agent][act] for act in ACTS},
                accuracy=float(np.mean(scores[agent])) if scores[agent] else None,
                entropy=_entropy(_shares(counts[agent])),
            )
            for agent in counts
        ),
        entropy=mixed,
        divergence=max(0.0, mixed - float(np.mean(each))) if each else 0.0,
    )


def _act(
    name: str, read: Sequence[str], responses: Mapping[str, str], worth: Mapping[str, float]
) -> str:
    if not read:
        return "originates"
    if worth:
        best = max(worth[one] for one in read)
        if worth[name] != best:
            return "corrects" if worth[name] > best else "spoils"
    same = any(responses[one] == responses[name] for one in read)
    return "passes on" if same else "rewrites"


def _shares(acts: Counter[str]) -> Array:
    counts = np.array([acts[act] for act in ACTS], dtype=np.float64)
    return counts / max(acts.total(), 1)


def _entropy(shares: Array) -> float:
    """In bits; 0 · log 0 is 0."""
    some = shares[shares > 0]
    return max(0.0, -float((some * np.log2(some)).sum()))
