"""kNN: an expert is expected to do as it did on the most similar known questions.

RouterBench (arXiv 2403.12031), section 4: the score of a question is the mean over its k nearest
training questions by cosine. k is chosen by leave-one-out where it is not given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from swarm.optimizers.embedding import Vectors
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded

CANDIDATES = (5, 10, 20, 40, 80, 160, 320)
"""Values of k that leave-one-out chooses from."""
CHUNK = 512
"""Questions whose similarities to all known ones are in memory at a time."""


@dataclass(kw_only=True, eq=False)
class KNN(Embedded):
    """Scores and costs are means over the k nearest known questions."""

    name: ClassVar[str] = "knn"
    axes: ClassVar = {"scores": 1, "each_cost": 1}

    neighbours: int | None = None
    """k; None: the one that routes best when each known question is left out in turn."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        self.learned["vectors"] = self.vectors(outcomes.questions)
        self.learned["scores"] = outcomes.scores.astype(np.float32)
        self.learned["each_cost"] = outcomes.costs.astype(np.float32)
        k = self.neighbours
        if k is None:
            k = best_k(self.learned["vectors"], outcomes.scores, outcomes.scores)
        self.facts["neighbours"] = min(k, len(outcomes))

    def estimates(self, questions: Sequence[str]) -> Floats:
        return self._mean("scores", questions)

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        return self._mean("each_cost", questions)

    def _mean(self, name: str, questions: Sequence[str]) -> Floats:
        known, k = self.learned["vectors"], self.facts["neighbours"]
        return neighbour_means(self.vectors(questions), known, self.learned[name], k)


def neighbour_means(vectors: Vectors, known: Vectors, values: NDArray[Any], k: int) -> Floats:
    """(n, m): the mean of `values`, which are those of `known`, over the k nearest of them, or all
    if they are fewer."""
    chunks = nearest(vectors, known, min(k, len(known)))
    means = [values[rows].mean(axis=1, dtype=np.float64) for rows in chunks]
    return np.concatenate(means) if means else np.zeros((0, values.shape[1]))


def nearest(
    vectors: Vectors, known: Vectors, k: int, *, leave_out: bool = False
) -> Iterator[NDArray[np.intp]]:
    """The k most similar rows of `known` for each of `vectors`, a chunk of (c, k) after another.

    Args:
        leave_out: `vectors` are `known` themselves: none is its own neighbour. Rows are then in
            order, the nearest first; else they are in none.
    """
    for start in range(0, len(vectors), CHUNK):
        similar = vectors[start : start + CHUNK] @ known.T
        if leave_out:
            rows = np.arange(len(similar))
            similar[rows, start + rows] = -np.inf
        if k == len(known) and not leave_out:
            yield np.broadcast_to(np.arange(k), similar.shape)
            continue
        found = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        if leave_out:
            order = np.argsort(-np.take_along_axis(similar, found, axis=1), axis=1, kind="stable")
            found = np.take_along_axis(found, order, axis=1)
        yield found


def best_k(
    vectors: Vectors, learned: NDArray[Any], scores: Floats, candidates: Sequence[int] = CANDIDATES
) -> int:
    """The number of neighbours that routes best by leave-one-out; the first of equals.

    Args:
        learned: (n, m): what is averaged over neighbours; the expert with the highest is chosen.
        scores: (n, m): what it is judged by.
    """
    possible = [k for k in candidates if k < len(vectors)]
    if not possible:
        return max(1, len(vectors) - 1)
    total = np.zeros(len(possible))
    start = 0
    for rows in nearest(vectors, vectors, possible[-1], leave_out=True):
        sums = np.cumsum(learned[rows], axis=1)
        own = scores[start : start + len(rows)]
        for i, k in enumerate(possible):
            total[i] += np.take_along_axis(own, sums[:, k - 1].argmax(axis=1)[:, None], 1).sum()
        start += len(rows)
    return possible[int(np.argmax(total))]
