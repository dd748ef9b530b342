"""Blend: what kind of question it is, by its form and by its subject, and who is best at that kind.

Ours. On recorded pools a question's benchmark says most of what a router can learn; what its
subject adds within one is small and easily drowned in noise. So an estimate is

    Σ over kinds κ of P(κ | x) · (mean score at κ + g_κ · shift(x))

- P(κ | x) is the mean of two classifiers that err differently on kinds never seen: one reads the
  vector (what it is about), the other the surface (what it looks like). Where they disagree, an
  expert that is good at both kinds wins, not the one that is best at either.
- shift(x) is a ridge regression, on the vector, of what a kind's mean leaves unexplained.
- g_κ, from 0 to 1, is 0 unless leave-one-out shows that shifting pays at that kind.

What no kind is sure of is shared by all kinds alike and by the question's nearest known ones
(`knn.py`): who is good at everything, or at what this looks most like.

`doubt` and that share were chosen by leaving benchmarks out, each of RouterDC's and LLMRouter's
recorded pools in turn, 20 in all (`benchmarks/routers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded
from swarm.optimizers.routers.knn import neighbour_means
from swarm.optimizers.routers.surface import surface

ALPHAS = (10.0, 30.0)
"""Penalties of the ridge regression, for leave-one-out to choose from at every kind."""
GAINS = (0.25, 0.5, 0.75, 1.0)
"""Values of g, likewise."""
FURTHEST = 4.0
"""Standard deviations of a surface feature: no question looks stranger than that."""


@dataclass(kw_only=True, eq=False)
class Blend(Embedded):
    """The default router. It reads tags when it is fitted; when it routes it has the text alone."""

    name: ClassVar[str] = "blend"
    axes: ClassVar = {
        "kind_scores": 1,
        "kind_costs": 1,
        "shift_0": 1,
        "shift_1": 1,
        "scores": 1,
        "each_cost": 1,
    }

    tag: str | None = "benchmark"
    """Key of `Outcomes.meta` that tells kinds apart; kinds are found by k-means where not every
    question has it."""
    clusters: int = 8
    """How many kinds are found."""
    prior: float = 5.0
    """A kind's means are drawn to those of all questions as by so many of them."""
    doubt: float = 3.0
    """How much of a question is left to all kinds and to its neighbours, in multiples of how likely
    it is of another kind than the likeliest."""
    neighbours: int = 160
    """How many of the nearest known questions have a say there."""
    proof: float = 0.5
    """Shifting must gain so many standard errors at a kind, by leave-one-out."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        vectors = self.vectors(outcomes.questions).astype(np.float64)
        looks = surface(outcomes.questions)
        self.learned["look_mean"] = looks.mean(axis=0)
        self.learned["look_deviation"] = looks.std(axis=0) + 1e-6
        looks = self._looks(looks)
        kinds, names = self._kinds(outcomes, np.concatenate([vectors, 0.15 * looks], axis=1))
        self.facts["kinds"] = names
        self._classify("subject", vectors, kinds, strength=10.0)
        self._classify("look", looks, kinds, strength=1.0)
        count = np.bincount(kinds, minlength=len(names))[:, None]
        for name, values in (("kind_scores", outcomes.scores), ("kind_costs", outcomes.costs)):
            sums = np.zeros((len(names), values.shape[1]))
            np.add.at(sums, kinds, values)
            self.learned[name] = (sums + self.prior * values.mean(axis=0)) / (count + self.prior)
        self._shift(vectors, outcomes.scores, kinds)
        self.learned["vectors"] = vectors.astype(np.float32)
        self.learned["scores"] = outcomes.scores.astype(np.float32)
        self.learned["each_cost"] = outcomes.costs.astype(np.float32)

    def _kinds(self, outcomes: Outcomes, features: Floats) -> tuple[NDArray[np.intp], list[str]]:
        tags: list[str | None] = [None] if self.tag is None else outcomes.tags(self.tag)
        if None not in tags:
            found, kinds = np.unique(np.array(tags, dtype=str), return_inverse=True)
            return kinds, [str(name) for name in found]
        from sklearn.cluster import KMeans

        count = min(self.clusters, len(np.unique(features, axis=0)))
        means = KMeans(count, n_init=3, random_state=self.seed % 2**32)
        found, kinds = np.unique(means.fit_predict(features), return_inverse=True)
        return kinds, [f"cluster {name}" for name in found]

    def _classify(
        self, name: str, features: Floats, kinds: NDArray[np.intp], *, strength: float
    ) -> None:
        """Logistic regression; kinds count alike, however few questions one has."""
        count = len(self.facts["kinds"])
        weights = np.zeros((features.shape[1] + 1, count))
        if count > 1:
            from sklearn.linear_model import LogisticRegression

            fitted = LogisticRegression(C=strength, max_iter=150, class_weight="balanced")
            fitted.fit(features, kinds)
            # Of two kinds scikit-learn has one row: that of the second against the first.
            weights[:-1, -len(fitted.coef_) :] = fitted.coef_.T
            weights[-1, -len(fitted.coef_) :] = fitted.intercept_
        self.learned[name] = weights

    def _shift(self, vectors: Floats, scores: Floats, kinds: NDArray[np.intp]) -> None:
        """Ridge regressions of what kinds leave unexplained, and each kind's share of them."""
        means = self.learned["kind_scores"]
        left = scores - means[kinds]
        self.learned["centre"] = vectors.mean(axis=0)
        centred = vectors - self.learned["centre"]
        gram = centred.T @ centred
        out: list[Floats] = []
        for i, alpha in enumerate(ALPHAS):
            solved = np.linalg.solve(gram + alpha * np.eye(len(gram)), centred.T)
            weights = solved @ left
            self.learned[f"shift_{i}"] = weights
            leverage = np.einsum("nd,dn->n", centred, solved) + 1 / len(vectors)
            # What is predicted of a question without it, in closed form.
            errors = (left - centred @ weights) / np.maximum(1 - leverage, 1e-6)[:, None]
            out.append(left - errors)
        gains = np.zeros((len(means), len(ALPHAS)))
        for kind, mean in enumerate(means):
            rows = np.flatnonzero(kinds == kind)
            own, best = scores[rows], 1e-9
            unmoved = own[:, mean.argmax()]
            for i, predicted in enumerate(out):
                for gain in GAINS:
                    chosen = (mean + gain * predicted[rows]).argmax(axis=1)
                    gained = own[np.arange(len(rows)), chosen] - unmoved
                    proven = gained.mean() - self.proof * gained.std() / np.sqrt(len(rows))
                    if proven > best:
                        best = float(proven)
                        gains[kind] = 0.0
                        gains[kind, i] = gain
        self.learned["gains"] = gains

    def _looks(self, looks: Floats) -> Floats:
        scaled = (looks - self.learned["look_mean"]) / self.learned["look_deviation"]
        clipped: Floats = np.clip(scaled, -FURTHEST, FURTHEST)
        return clipped

    def kinds(self, questions: Sequence[str]) -> Floats:
        """(n, kinds): how likely each is."""
        subject = _softmax(self.vectors(questions), self.learned["subject"])
        look = _softmax(self._looks(surface(questions)), self.learned["look"])
        likely: Floats = (subject + look) / 2
        return likely

    def estimates(self, questions: Sequence[str]) -> Floats:
        kinds = self.kinds(questions)
        values: Floats = kinds @ self.learned["kind_scores"]
        centred = self.vectors(questions) - self.learned["centre"]
        shares = kinds @ self.learned["gains"]
        for i in range(len(ALPHAS)):
            values = values + shares[:, i : i + 1] * (centred @ self.learned[f"shift_{i}"])
        return self._doubted(questions, kinds, values, "kind_scores", "scores")

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        kinds = self.kinds(questions)
        values = kinds @ self.learned["kind_costs"]
        return self._doubted(questions, kinds, values, "kind_costs", "each_cost")

    def _doubted(
        self, questions: Sequence[str], kinds: Floats, values: Floats, table: str, known: str
    ) -> Floats:
        """`values`, as far as it is clear of what kind a question is; else what all kinds and the
        nearest known questions say."""
        unsure = np.minimum(self.doubt * (1 - kinds.max(axis=1, keepdims=True)), 1.0)
        near = neighbour_means(
            self.vectors(questions), self.learned["vectors"], self.learned[known], self.neighbours
        )
        others = (self.learned[table].mean(axis=0) + near) / 2
        doubted: Floats = (1 - unsure) * values + unsure * others
        return doubted


def _softmax(features: NDArray[Any], weights: Floats) -> Floats:
    logits = features @ weights[:-1] + weights[-1]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: Floats = powers / powers.sum(axis=1, keepdims=True)
    return softmax
