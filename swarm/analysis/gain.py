"""Collaborative gain: what a system can do beyond what its experts can do alone.

C-Gain of Heterogeneous Swarms (arXiv 2502.04510, the analysis of collaborative gains): questions
are grouped by the number k of the n experts that solve them alone. An expert drawn at random solves
a question of group k with probability k/n, so

    C-Gain = Σ_k |D_k| / |D| · (accuracy of the system on D_k − k/n).

The sum is the system's accuracy minus the experts' mean accuracy; what the groups add is where the
gain comes from. Group 0 are questions that nobody solves alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from swarm.errors import InputError
from swarm.optimizers.searchers.base import Array


class Group(NamedTuple):
    """Questions that equally many experts solve alone."""

    solvers: int
    """k."""
    questions: int
    """|D_k|."""
    accuracy: float
    """The system's."""
    expected: float
    """k/n."""


class CollaborativeGain(NamedTuple):
    """C-Gain, with the groups that it is the mean of."""

    gain: float
    low: float
    high: float
    """95 % confidence interval of `gain`: normal, over the questions."""
    groups: tuple[Group, ...]
    """Those that have questions, k ascending."""


def collaborative_gain(system: Array, experts: Array, *, solved: float = 1.0) -> CollaborativeGain:
    """C-Gain of a system over its experts on the same questions.

    Args:
        system: its scores, shape (questions,).
        experts: theirs alone, shape (n, questions).
        solved: a question counts as solved from this score on. (The paper's are right or wrong.)

    Raises:
        InputError: no experts, no questions, or shapes that don't fit.
    """
    if experts.ndim != 2 or not experts.size or system.shape != experts.shape[1:]:
        raise InputError(
            f"scores of shape {system.shape} for the system and {experts.shape} for the experts: "
            "must be (questions,) and (n, questions), with at least one of each"
        )
    n, questions = experts.shape
    solvers = (experts >= solved).sum(axis=0)
    right = (system >= solved).astype(np.float64)
    surplus = right - solvers / n
    gain = float(surplus.mean())
    half = 1.96 * float(surplus.std(ddof=1)) / math.sqrt(questions) if questions > 1 else 2.0
    groups = [
        Group(int(k), int(here.sum()), float(right[here].mean()), float(k) / n)
        for k in np.unique(solvers)
        for here in [solvers == k]
    ]
    return CollaborativeGain(gain, max(gain - half, -1.0), min(gain + half, 1.0), tuple(groups))
