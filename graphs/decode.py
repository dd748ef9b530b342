"""G-Decode: continuous adjacency matrices become graphs (Heterogeneous Swarms, arXiv 2502.04510).

All particles of a swarm are decoded at once. Shapes: N particles, n agents; ``A[k, u, v]`` is how
much particle k wants the response of agent u to go to agent v.

Departures from the published code, where it is silent or breaks:

- who may be picked is a matter of membership: an entry of exactly 0 is as good as any other;
- the matrices are not written to, and their diagonals not read;
- ``1 / row sum`` is continued to sums of 0 and below (`_end_scores`);
- entries beyond ±1e300 count as ±1e300, so that sums stay finite.

Every particle draws its own ``n * (1 + successors)`` uniform numbers, whatever `p` is, in the order
of the particles. So a particle's graph doesn't depend on which others are decoded with it: decoding
one after the other from one generator gives the same graphs as decoding all together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarm.errors import InputError
from swarm.graphs.graph import MAX_AGENTS, Agent, AgentGraph, name_agents

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

_LIMIT = 1e300
_SMALL = 1e-3
"""Row sums from here on down get a continuation of 1/s; at 1000 the softmax has long saturated."""


class Decoded(NamedTuple):
    """What G-Decode decides, as positions."""

    parents: Ints
    """(N, n): the agent that reads agent u's response; -1 for the end node."""
    order: Ints
    """(N, n): the agents in the order of their insertion, the end node first."""


def decode(
    adjacency: npt.ArrayLike,
    agents: Sequence[Agent] | Sequence[str],
    *,
    p: float,
    rng: np.random.Generator,
    threshold: float | None = None,
    leave_out: float | None = None,
    successors: int = 1,
) -> AgentGraph:
    """The graph of one (n, n) matrix; see `decode_swarm`."""
    matrix = np.asarray(adjacency)
    if matrix.ndim != 2:
        raise InputError(
            f"`adjacency` has shape {matrix.shape}: one matrix is (n, n); "
            "for several at once use `decode_swarm`"
        )
    [graph] = decode_swarm(
        matrix[None],
        agents,
        p=p,
        rng=rng,
        threshold=threshold,
        leave_out=leave_out,
        successors=successors,
    )
    return graph


def decode_swarm(
    adjacency: npt.ArrayLike,
    agents: Sequence[Agent] | Sequence[str],
    *,
    p: float,
    rng: np.random.Generator,
    threshold: float | None = None,
    leave_out: float | None = None,
    successors: int = 1,
) -> list[AgentGraph]:
    """The graphs of N particles' matrices, shape (N, n, n), entry (u, v) for the edge u -> v.

    Position i is `agents[i]`, an agent or the name of an expert. Agents stand in the graph in this
    order, whatever the order of insertion, so that equal trees are equal graphs. `p` in [0, 1] is
    how far down the candidates the draw reaches: 0 always takes the best, 1 considers all.
    The three options go beyond the published procedure, which they leave as it is by default:

    - `threshold`: entries below it count as 0 in all scores. Such an edge can still be drawn,
      since every agent must be heard by somebody (the paper's "sparsity").
    - `leave_out`: edges of less than this (after `threshold`) may not be used, and an agent that
      finds none it may use when its turn comes stays out of the graph. The end node always is in.
    - `successors`: each agent gets up to so many edges, drawn one after the other without
      replacement from the agents already inserted: a general DAG instead of a tree.

    Raises `InputError` for a shape, a `p` or an entry (NaN, infinite) that can't be decoded.
    """
    matrices = _checked(adjacency, p, successors, threshold)
    count, n, _ = matrices.shape
    cast = _cast(agents)
    if len(cast) != n:
        raise InputError(
            f"`adjacency` is for {n} agents, but {len(cast)} were given: "
            "row and column i belong to agent i"
        )
    uniform = rng.random((count, n, 1 + successors))
    targets, _, inserted = _insert(matrices, p, uniform, leave_out, successors)
    return [_graph(cast, *particle) for particle in zip(targets, inserted, strict=True)]


def decode_parents(adjacency: npt.ArrayLike, *, p: float, rng: np.random.Generator) -> Decoded:
    """G-Decode as published, for matrices (N, n, n), without making graphs of the outcome.

    Draws the same numbers as `decode_swarm` and raises like it.
    """
    matrices = _checked(adjacency, p, successors=1)
    count, n, _ = matrices.shape
    targets, order, _ = _insert(matrices, p, rng.random((count, n, 2)), None, 1)
    return Decoded(targets[:, :, 0], order)


def pick(scores: Floats, admissible: Bools, p: float, uniform: Floats) -> Ints:
    """Top-p sampling, one pick a row: scores and mask (N, n), uniform numbers (N,) -> indices (N,).

    Softmax over the admissible scores; the shortest prefix, best first, whose mass exceeds `p` is
    kept and renormalised by a second softmax, over the kept *probabilities*; `uniform` in [0, 1)
    decides. (Softmax of probabilities is nearly flat: whoever is kept has a fair chance.)
    Ties are broken by index. A row without anything admissible picks an arbitrary index.
    """
    masked = np.where(admissible, scores, -np.inf)
    best_first = np.argsort(-masked, axis=1, kind="stable")
    # A row without anything admissible becomes all zeros; any other has a mass of at least 1.
    best = np.where(admissible.any(axis=1), masked.max(axis=1), 0.0)[:, None]
    mass = np.exp(np.take_along_axis(masked, best_first, axis=1) - best)
    probability = mass / np.maximum(mass.sum(axis=1, keepdims=True), 1.0)

    mass_before = np.zeros_like(probability)
    np.minimum(np.cumsum(probability[:, :-1], axis=1), 1.0, out=mass_before[:, 1:])
    kept = (mass_before <= p) & np.take_along_axis(admissible, best_first, axis=1)
    cumulated = np.cumsum(np.where(kept, np.exp(probability), 0.0), axis=1)
    rank = (cumulated > uniform[:, None] * cumulated[:, -1:]).argmax(axis=1)
    return np.take_along_axis(best_first, rank[:, None], axis=1)[:, 0]


def _insert(
    matrices: Floats, p: float, uniform: Floats, leave_out: float | None, successors: int
) -> tuple[Ints, Ints, Bools]:
    """Targets (N, n, successors), -1 for none; order of insertion (N, n); who is in (N, n)."""
    count, n, _ = matrices.shape
    particle = np.arange(count)
    weight = matrices.sum(axis=2)
    targets = np.full((count, n, successors), -1)
    order = np.empty((count, n), dtype=np.intp)
    inserted = np.zeros((count, n), dtype=np.bool_)
    remaining = np.ones((count, n), dtype=np.bool_)

    order[:, 0] = end = pick(_end_scores(weight), remaining, p, uniform[:, 0, 0])
    inserted[particle, end] = True
    remaining[particle, end] = False
    for step in range(1, n):
        order[:, step] = u = pick(weight, remaining, p, uniform[:, step, 0])
        remaining[particle, u] = False
        wish = matrices[particle, u]
        admissible = inserted & (wish >= (-np.inf if leave_out is None else leave_out))
        inserted[particle, u] = admissible.any(axis=1)
        for k in range(successors):
            v = pick(wish, admissible, p, uniform[:, step, 1 + k])
            targets[particle, u, k] = np.where(admissible[particle, v], v, -1)
            admissible[particle, v] = False
    return targets, order, inserted


def _end_scores(weight: Floats) -> Floats:
    """1/s, the less an agent gives away the likelier it is the end node; finite for every sum s.

    Below s = 1e-3 it goes on as ``(1 + log(2 - s / 1e-3)) / 1e-3``: same value and slope there,
    strictly decreasing, and no overflow however negative the sum.
    """
    tail = (1.0 + np.log(2.0 * _SMALL - np.minimum(weight, _SMALL)) - np.log(_SMALL)) / _SMALL
    return np.where(weight >= _SMALL, 1.0 / np.maximum(weight, _SMALL), tail)


def _checked(
    adjacency: npt.ArrayLike, p: float, successors: int, threshold: float | None = None
) -> Floats:
    """A fresh, finite (N, n, n) array with a zero diagonal, and zeros for entries below
    `threshold`."""
    try:
        matrices = np.array(adjacency, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InputError(f"`adjacency` is no array of numbers: {error}") from None
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not matrices.shape[1]:
        raise InputError(
            f"`adjacency` has shape {matrices.shape}: it is (N, n, n), "
            "one square matrix a particle, n at least 1"
        )
    if matrices.shape[1] > MAX_AGENTS:
        raise InputError(
            f"`adjacency` is for {matrices.shape[1]} agents: a graph has at most {MAX_AGENTS}"
        )
    finite = np.isfinite(matrices)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(
            f"entry {where[1:]} of particle {where[0]} is {matrices[where]}: "
            "adjacency matrices are finite; look for what made it so"
        )
    if not 0.0 <= p <= 1.0:
        raise InputError(f"`p` is {p}: it is a share of probability, from 0 (best only) to 1 (all)")
    if successors < 1:
        raise InputError(f"`successors` is {successors}: an agent is heard by at least 1 other")
    diagonal = np.arange(matrices.shape[1])
    matrices[:, diagonal, diagonal] = 0.0
    if threshold is not None:
        matrices[matrices < threshold] = 0.0
    return np.clip(matrices, -_LIMIT, _LIMIT)


def _cast(agents: Sequence[Agent] | Sequence[str]) -> tuple[Agent, ...]:
    given = [agent for agent in agents if isinstance(agent, Agent)]
    names = [agent for agent in agents if isinstance(agent, str)]
    if isinstance(agents, str) or len(agents) not in (len(given), len(names)):
        raise InputError("`agents` is a list of `Agent`s, or a list of experts' names")
    return tuple(given) or name_agents(names)


def _graph(agents: tuple[Agent, ...], targets: Ints, inserted: Bools) -> AgentGraph:
    """One particle's graph; `targets` and `inserted` as in `_insert`."""
    edges = [(u, v) for u, to in enumerate(targets.tolist()) for v in to if v >= 0]
    return AgentGraph(
        agents=tuple(agent for agent, is_in in zip(agents, inserted, strict=True) if is_in),
        edges=tuple((agents[u].name, agents[v].name) for u, v in edges),
    )
