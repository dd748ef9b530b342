"""Weight-step of Heterogeneous Swarms (arXiv 2502.04510, section 3.2): the experts' weights move.

Each expert is a particle in weight space; how good it is for the system is its JFK-score. The
update only adds, subtracts and scales weight vectors with scalar random numbers, so every particle,
velocity and best stays in the span of the n initial experts: positions here are rows of n
coefficients, and weights are merged only to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError
from swarm.optimizers.pso import ParticleSwarm, SwarmSettings
from swarm.optimizers.searchers.base import Array

Assignments = NDArray[np.int64]


def weight_swarm(
    experts: int,
    rng: np.random.Generator,
    settings: SwarmSettings | None = None,
    *,
    iterations: int = 20,
) -> ParticleSwarm:
    """A swarm of n experts' coefficients, shape (n, n), that begins with the experts themselves.

    Row i are the coefficients of particle i over the initial experts: entry (i, k) times the
    weights of expert k, summed over k, are its weights.

    Raises:
        InputError: random numbers an entry, which would leave the span of the experts' weights.
    """
    settings = settings or SwarmSettings()
    if settings.randomness == "entry":
        raise InputError(
            "`randomness` is `entry`: the weight-step needs one random number a particle, "
            "since numbers an entry leave the span of the experts: use `scalar` or `none`"
        )
    return ParticleSwarm(np.eye(experts), rng, settings, iterations=iterations)


def draw_assignments(
    count: int, positions: int, experts: int, rng: np.random.Generator
) -> Assignments:
    """M random casts of a graph, drawn with replacement, shape (count, positions).

    Entry (m, i) is the expert that plays position i in cast m.
    """
    return rng.integers(0, experts, size=(count, positions))


def jfk_scores(
    assignments: Assignments, scores: Sequence[float] | Array, last: Sequence[float] | Array
) -> Array:
    """JFK-score of each of n experts, shape (n,): how good the casts are that it stands in.

    JFK_i = Σ_m c_im f_m / Σ_m c_im, with c_im how often expert i stands in cast m and f_m the
    cast's score (section 3.2). An expert that stands in none keeps its `last` score; the published
    code divides by zero there.

    Args:
        assignments: shape (M, positions), experts as indices below n.
        scores: f, shape (M,).
        last: the n experts' scores so far.
    """
    kept = np.array(last, dtype=np.float64)
    experts = np.arange(len(kept))
    counts = (assignments[:, :, None] == experts).sum(axis=1).astype(np.float64)
    stood = counts.sum(axis=0)
    total = counts.T @ np.asarray(scores, dtype=np.float64)
    np.divide(total, stood, out=kept, where=stood > 0)
    return kept
