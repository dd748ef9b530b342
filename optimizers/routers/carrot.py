"""CARROT: estimate each expert's score and cost, then weigh one against the other.

CARROT (arXiv 2502.03261): plug-in routing, argmax over experts of (estimated score − λ · estimated
cost), is minimax optimal, and one pair of estimators serves every λ (section 3: their μ is
λ / (1 + λ)). The paper's estimators are kNN and a fine-tuned encoder; these are the mean of kNN and
of a ridge regression on the question's vector and length. Of a question that stands among worked
examples, as in RouterBench, only its own text is read (`templates.py`); which examples they are is
known to the regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.optimizers.embedding import Vectors
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded
from swarm.optimizers.routers.knn import neighbour_means
from swarm.optimizers.routers.templates import Templates

ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Ridge penalties that leave-one-out chooses from."""


@dataclass(kw_only=True, eq=False)
class Carrot(Embedded):
    """Set `trade_off` to what a USD a question is worth, in score: the same fit serves them all.

    Costs are estimated relative to each expert's mean, so that cheap and dear ones are fitted
    equally well.
    """

    name: ClassVar[str] = "carrot"
    axes: ClassVar = {"score_weights": 1, "cost_weights": 1, "scores": 1, "each_cost": 1}

    neighbours: int = 160
    """k of kNN; 0: ridge regression alone."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        self.facts["templates"] = Templates.of(outcomes.questions).facts
        lengths = np.log1p([len(own) for own in self.templates.own(outcomes.questions)])
        self.facts["length"] = [float(lengths.mean()), float(lengths.std() or 1.0)]
        features = self._features(outcomes.questions)
        self.learned["score_weights"] = ridge(features, outcomes.scores)
        scale = np.where(self.learned["costs"] > 0, self.learned["costs"], 1.0)
        self.learned["cost_weights"] = ridge(features, outcomes.costs / scale) * scale

        if self.neighbours:
            self.learned["vectors"] = self.vectors(outcomes.questions)
            self.learned["scores"] = outcomes.scores.astype(np.float32)
            self.learned["each_cost"] = outcomes.costs.astype(np.float32)

    @property
    def templates(self) -> Templates:
        return Templates.from_facts(self.facts["templates"])

    def vectors(self, questions: Sequence[str]) -> Vectors:
        return super().vectors(self.templates.own(questions))

    def estimates(self, questions: Sequence[str]) -> Floats:
        return self._both("score_weights", "scores", questions)

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        return np.maximum(self._both("cost_weights", "each_cost", questions), 0.0)

    def _both(self, linear: str, known: str, questions: Sequence[str]) -> Floats:
        values = self._linear(linear, questions)
        if not self.neighbours:
            return values
        near = neighbour_means(
            self.vectors(questions), self.learned["vectors"], self.learned[known], self.neighbours
        )
        return (values + near) / 2

    def _linear(self, name: str, questions: Sequence[str]) -> Floats:
        weights = self.learned[name]
        linear: Floats = self._features(questions) @ weights[:-1] + weights[-1]
        return linear

    def _features(self, questions: Sequence[str]) -> Floats:
        """(n, d + 2 + templates): vector, length, square of length, and which template; a unit of
        length weighs like a vector's."""
        templates = self.templates
        mean, deviation = self.facts["length"]
        lengths = (np.log1p([len(own) for own in templates.own(questions)]) - mean) / deviation
        sides = 0.3 * np.stack([lengths, lengths**2 - 1], axis=1)
        vectors = self.vectors(questions).astype(np.float64)
        return np.concatenate([vectors, sides, templates.which(questions)], axis=1)


def ridge(features: Floats, targets: Floats) -> Floats:
    """(d + 1, m): weights, and the intercept below them; each target has the penalty of `ALPHAS`
    that has the least squared error when each question is left out in turn."""
    from sklearn.linear_model import RidgeCV

    fitted = RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(features, targets)
    weights = np.reshape(fitted.coef_, (targets.shape[1], -1)).T
    return np.concatenate([weights, np.reshape(fitted.intercept_, (1, -1))])
