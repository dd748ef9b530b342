"""What each expert contributes: JFK-scores (arXiv 2502.04510, section 3.2), and where it stands."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from swarm.analysis.job import JobHistory, pool_expert
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.searchers.base import Array


class Places(NamedTuple):
    """How good graphs are in which an expert stands in a place, n experts × places."""

    mean: Array
    """Shape (n, places): mean score of the graphs; nan where there is none. Column d is d steps
    away from the end node: 0 is the end node itself."""
    graphs: Array
    """Shape (n, places): how many graphs that is."""


def jfk_by_iteration(job: JobHistory) -> Array:
    """JFK-scores, shape (iterations, n); an iteration without a weight-step keeps the last one's.

    They are nan until an expert first stands in a cast: nothing is known of it before.
    """
    found = np.full((len(job.iterations), len(job.experts)), np.nan)
    last = found[0].copy()
    for row, iteration in zip(found, job.iterations, strict=True):
        if (weight := iteration.weight) is not None:
            stood = np.isin(np.arange(len(last)), weight.assignments)
            last[stood] = weight.jfk[stood]
        row[:] = last
    return found


def by_place(job: JobHistory) -> Places:
    """The mean score of the job's graphs by an expert's place in them.

    Says what an expert is worth where there are no weight-steps. (In a role-step every expert
    stands in every graph: only its place differs.) Every graph counts once, whole evaluations only.
    """
    n = len(job.experts)
    index = {name: i for i, name in enumerate(job.experts)}
    total, count = np.zeros((n, n)), np.zeros((n, n))
    for graph, score in job.whole_scores().items():
        steps = distance_to_end(graph)
        for agent in graph.agents:
            expert = index[pool_expert(agent.expert, job.experts)]
            total[expert, steps[agent.name]] += score
            count[expert, steps[agent.name]] += 1
    places = max((d + 1 for d in range(n) if count[:, d].any()), default=0)
    with np.errstate(invalid="ignore"):
        return Places((total / count)[:, :places], count[:, :places])


def distance_to_end(graph: AgentGraph) -> dict[str, int]:
    """Agent → the fewest edges from it to the end node."""
    steps = {graph.end.name: 0}
    queue = deque(steps)
    while queue:
        reader = queue.popleft()
        for agent in graph.predecessors(reader):
            if agent.name not in steps:
                steps[agent.name] = steps[reader] + 1
                queue.append(agent.name)
    return steps
