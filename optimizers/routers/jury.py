"""Jury: a few experts a question, and how much each one's vote counts there, learned together.

Ours, on top of SelectLLM. A vote that weighs each expert by how often it is right counts twice what
two experts know alike. Here weights are learned as votes are counted: the answer a of question x is
given by experts J(a), and the weights of

    P(a is right | x) ∝ exp(Σ over j in J(a) of w_j + ⟨u_j, v(x)⟩)

are those with the highest likelihood, u drawn to 0 and w to their mean: a conditional logit
(McFadden, 1974), also known as a log-linear pool of experts. v is the question's vector, so that a
weight depends on what is asked. The `calls` experts with the highest weights are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns
from swarm.optimizers.routers.select_llm import SelectLLM

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""On the squares of u, for cross-validation to choose from."""
FOLDS = 4
STEPS = 60
"""Of L-BFGS."""


@dataclass(kw_only=True, eq=False)
class Jury(SelectLLM):
    """Reads `Outcomes.answers`: experts agree where their answers are the same text.

    An estimate is a weight, not a score: a trade-off with cost is in that unit.
    """

    name: ClassVar[str] = "jury"
    axes: ClassVar = {"weights": 1, "bias": 0}

    calls: int = 5
    penalty: float | None = None
    """On the squares of u; None: the one of `PENALTIES` with the highest likelihood by
    cross-validation."""
    stiffness: float = 1.0
    """The penalty on how far w is from its mean."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        vectors = self.vectors(outcomes.questions).astype(np.float64)
        self.learned["centre"] = vectors.mean(axis=0)
        ballots = Ballots.of(outcomes, vectors - self.learned["centre"])
        penalty = self._penalty(ballots, rng) if self.penalty is None else self.penalty
        self.facts["penalty"] = penalty
        weights = self._learn(ballots, penalty)
        self.learned["weights"], self.learned["bias"] = weights[:-1], weights[-1]

    def _penalty(self, ballots: Ballots, rng: np.random.Generator) -> float:
        fold = rng.permutation(len(ballots)) % FOLDS
        if len(ballots) < 2 * FOLDS:
            return PENALTIES[-1]
        losses = np.zeros(len(PENALTIES))
        for each in range(FOLDS):
            known, unknown = ballots.take(fold != each), ballots.take(fold == each)
            weights = None
            for i, penalty in reversed(list(enumerate(PENALTIES))):
                weights = self._learn(known, penalty, weights)
                losses[i] += unknown.loss(weights)[0]
        return PENALTIES[int(np.argmin(losses))]

    def _learn(self, ballots: Ballots, penalty: float, start: Floats | None = None) -> Floats:
        """(d + 1, m): u, and w below it."""
        from scipy.optimize import minimize

        shape = ballots.vectors.shape[1] + 1, ballots.answers.shape[1]
        if start is None:
            start = np.zeros(shape)
            start[-1] = 1.0

        def objective(flat: Floats) -> tuple[float, Floats]:
            weights = flat.reshape(shape)
            loss, slope = ballots.loss(weights)
            off = weights[-1] - weights[-1].mean()
            slope[:-1] += 2 * penalty * weights[:-1]
            slope[-1] += 2 * self.stiffness * off
            loss += penalty * np.square(weights[:-1]).sum() + self.stiffness * np.square(off).sum()
            return loss, slope.ravel()

        found = minimize(
            objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        weights: Floats = found.x.reshape(shape)
        return weights

    def estimates(self, questions: Sequence[str]) -> Floats:
        centred = self.vectors(questions) - self.learned["centre"]
        weights: Floats = centred @ self.learned["weights"] + self.learned["bias"]
        return weights

    def select(self, questions: Sequence[str]) -> tuple[Columns, Floats]:
        values = weights = self.estimates(questions)
        if self.trade_off:
            values = weights - self.trade_off * self.cost_estimates(questions)
        order = np.argsort(-self.learned["means"], kind="stable")
        ranked = order[np.argsort(-values[:, order], axis=1, kind="stable")]
        chosen: Columns = ranked[:, : self.calls]
        return chosen, np.take_along_axis(weights, chosen, axis=1)


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
    def of(cls, outcomes: Outcomes, vectors: Floats) -> Ballots:
        if outcomes.answers is None:
            raise InputError("router `jury` learns from answers: give outcomes that have them")
        answers = np.full(outcomes.scores.shape, -1, dtype=np.intp)
        right = np.zeros(outcomes.scores.shape, dtype=bool)
        for row, given in enumerate(outcomes.answers):
            numbers: dict[str, int] = {}
            for column, answer in enumerate(given):
                if answer is not None:
                    number = numbers.setdefault(plain(answer), len(numbers))
                    answers[row, column] = number
                    right[row, number] |= outcomes.scores[row, column] > 0.5
        # Where nobody is right no weight makes a difference.
        rows = right.any(axis=1)
        return cls(vectors[rows], answers[rows], right[rows])

    def take(self, rows: NDArray[np.bool_]) -> Ballots:
        return Ballots(self.vectors[rows], self.answers[rows], self.right[rows])

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


def plain(answer: str) -> str:
    """An answer as it is compared with others."""
    return " ".join(answer.lower().split())
