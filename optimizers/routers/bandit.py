"""Bandit: learns online, from the outcome of the expert that was asked alone.

LLM Bandit (arXiv 2502.02743) makes routing a bandit with two rewards, score and −cost, and a policy
conditioned on the user's preference ω between them: the reward of an answer is ω · score −
(1 − ω) · cost. Its policy is a network trained by PPO on outcomes of all experts. Ours is linear,
so that it can learn from one answer at a time: LinUCB (arXiv 1003.0146, algorithm 1) for scores and
for costs apart, which lets ω change at any time without learning anything anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.errors import InputError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns, Embedded


@dataclass(kw_only=True, eq=False)
class Bandit(Embedded):
    """`fit` plays the known questions once, in random order, and sees of each the outcome of the
    expert that it chose. `explore` and `update` go on from there, one question at a time."""

    name: ClassVar[str] = "bandit"
    axes: ClassVar = {"precision": 0, "score_sums": 0, "cost_sums": 0}

    preference: float = 1.0
    """ω, in [0, 1]: 1 is for score alone. It may be set at any time."""
    exploration: float = 0.3
    """α: how much is added for what is not known yet, in standard deviations."""
    size: int = 48
    """Principal components of the vectors that it looks at."""
    rounds: int = 1
    """How often `fit` plays the questions."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        from sklearn.decomposition import PCA

        vectors = self.vectors(outcomes.questions)
        size = min(self.size, *vectors.shape)
        components = PCA(size, random_state=self.seed % 2**32).fit(vectors)
        self.learned["centre"] = components.mean_
        # A component's scale is kept: the first say more.
        self.learned["components"] = components.components_ / vectors.std()
        experts = len(outcomes.experts)
        self.learned["scale"] = np.array(outcomes.costs.max() or 1.0)
        self.learned["precision"] = np.tile(np.eye(size + 1), (experts, 1, 1))
        self.learned["score_sums"] = np.zeros((experts, size + 1))
        self.learned["cost_sums"] = np.zeros((experts, size + 1))
        features = self._features(outcomes.questions)
        inverses = self.learned["precision"].copy()
        for _ in range(self.rounds):
            for row in rng.permutation(len(outcomes)):
                x = features[row]
                chosen = int(np.argmax(self._optimistic(x, inverses)))
                self._learn(x, chosen, outcomes.scores[row, chosen], outcomes.costs[row, chosen])
                # Sherman and Morrison: the inverse of precision + x xᵀ.
                moved = inverses[chosen] @ x
                inverses[chosen] -= np.outer(moved, moved) / (1 + x @ moved)

    def explore(self, question: str) -> int:
        """The column of the expert to ask now: the best so far, or one that may be better."""
        [x] = self._features([question])
        return int(np.argmax(self._optimistic(x, np.linalg.inv(self.learned["precision"]))))

    def update(self, question: str, expert: str, score: float, cost: float = 0.0) -> None:
        """Learns from an answer: its score, in [0, 1], and its cost in USD."""
        if expert not in self.experts:
            raise InputError(f"bandit has no expert `{expert}`: it has {', '.join(self.experts)}")
        [x] = self._features([question])
        self._learn(x, self.experts.index(expert), score, cost)

    def _learn(self, x: Floats, expert: int, score: float, cost: float) -> None:
        self.learned["precision"][expert] += np.outer(x, x)
        self.learned["score_sums"][expert] += score * x
        self.learned["cost_sums"][expert] += cost / self.learned["scale"] * x

    def _optimistic(self, x: Floats, inverses: Floats) -> Floats:
        """(m,): ω (score + α · width) − (1 − ω) cost; costs are in units of the highest."""
        moved = inverses @ x
        scores = np.einsum("md,md->m", self.learned["score_sums"], moved)
        costs = np.einsum("md,md->m", self.learned["cost_sums"], moved)
        width = np.sqrt(np.maximum(moved @ x, 0))
        optimistic: Floats = (
            self.preference * (scores + self.exploration * width) - (1 - self.preference) * costs
        )
        return optimistic

    def _features(self, questions: Sequence[str]) -> Floats:
        """(n, size + 1): components and 1."""
        centred = self.vectors(questions) - self.learned["centre"]
        read = centred @ self.learned["components"].T / np.sqrt(len(self.learned["components"]))
        features: Floats = np.concatenate([read, np.ones((len(read), 1))], axis=1, dtype=np.float64)
        return features

    def _linear(self, name: str, questions: Sequence[str]) -> Floats:
        weights = np.linalg.solve(self.learned["precision"], self.learned[name][:, :, None])[..., 0]
        linear: Floats = self._features(questions) @ weights.T
        return linear

    def estimates(self, questions: Sequence[str]) -> Floats:
        return self._linear("score_sums", questions)

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        costs: Floats = self._linear("cost_sums", questions) * self.learned["scale"]
        return costs

    def route(self, questions: Sequence[str]) -> Columns:
        if self.preference == 1:
            return super().route(questions)
        costs = self.cost_estimates(questions) / self.learned["scale"]
        values = self.preference * self.estimates(questions) - (1 - self.preference) * costs
        return self.choose(values)
