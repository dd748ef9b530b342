"""What experts' votes are worth is learned from questions that somebody answered rightly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError
from swarm.optimizers.outcomes import Floats, Outcomes


@dataclass(frozen=True, eq=False)
class Ballots:
    """The questions that somebody answered rightly: n of them, by m experts."""

    vectors: Floats
    """(n, d)."""
    answers: NDArray[np.intp]
    """(n, m): which of the question's answers each expert gave, numbered; -1 for none."""
    right: NDArray[np.bool_]
    """(n, m): whether answer number i is right."""

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of(
        cls, outcomes: Outcomes, vectors: Floats, read: Callable[[str | None], str | None]
    ) -> Self:
        if outcomes.answers is None:
            raise InputError("router `jury` learns from answers: give outcomes that have them")
        answers = np.full(outcomes.scores.shape, -1, dtype=np.intp)
        right = np.zeros(outcomes.scores.shape, dtype=bool)
        for row, given in enumerate(outcomes.answers):
            numbers: dict[str, int] = {}
            for column, answer in enumerate(given):
                if (plain := read(answer)) is not None:
                    number = numbers.setdefault(plain, len(numbers))
                    answers[row, column] = number
                    right[row, number] |= outcomes.scores[row, column] > 0.5
        # Where nobody is right no weight makes a difference.
        rows = right.any(axis=1)
        return cls(vectors[rows], answers[rows], right[rows])

    def take(self, rows: NDArray[np.bool_]) -> Self:
        return type(self)(self.vectors[rows], self.answers[rows], self.right[rows])

    def loss(self, weights: Floats) -> tuple[float, Floats]:
        """-log P of the right answers, in sum, and its slope by `weights`, (d + 1, m)."""
        each = self.vectors @ weights[:-1] + weights[-1]
        n, m = each.shape
        rows = np.broadcast_to(np.arange(n)[:, None], (n, m))
        given = self.answers >= 0
        votes = np.zeros((n, m))
        np.add.at(votes, (rows[given], self.answers[given]), each[given])
        there = np.zeros((n, m), dtype=bool)
        there[rows[given], self.answers[given]] = True
        votes[~there] = -np.inf
        top = votes.max(axis=1, keepdims=True)
        powers = np.exp(votes - top)
        total = powers.sum(axis=1)
        good = np.where(self.right, powers, 0.0)
        of_right = np.maximum(good.sum(axis=1), 1e-300)
        loss = float(np.log(total / of_right).sum())
        # By a vote: P(a) - P(a | right).
        by_vote = powers / total[:, None] - good / of_right[:, None]
        slope = np.where(given, by_vote[rows, np.maximum(self.answers, 0)], 0.0)
        return loss, np.concatenate([self.vectors.T @ slope, slope.sum(axis=0)[None]])
