"""Domains: guess what a question is about, then ask the expert that is best at it, within a budget.

Composition of Experts (arXiv 2412.01868): a router in two steps, question → category → expert;
which expert serves which category is an integer program that maximises dev scores while all experts
that serve any fit a memory budget. MoDEM (arXiv 2410.07490): the same with a classifier of domains
and an expert a domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError, PoolError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded


@dataclass(kw_only=True, eq=False)
class Domains(Embedded):
    """Labels are read when it is fitted; when it routes it has the text alone."""

    name: ClassVar[str] = "domains"
    axes: ClassVar = {"domain_scores": 1, "domain_costs": 1}

    tag: str | None = None
    """Key of `Outcomes.meta` that holds a question's domain; None: domains are found by k-means."""
    clusters: int = 12
    """How many are found."""
    budget: float | None = None
    """What the `sizes` of all experts that serve may add up to; None: no limit."""
    sizes: Mapping[str, float] | None = None
    """Expert → its size, in the unit of the budget; one that is not named: 1."""
    unsure: float = 0.0
    """Below this probability of its domain a question goes to the best expert overall."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        vectors = self.vectors(outcomes.questions)
        labels, names = self._labels(outcomes, vectors)
        self._classify(vectors, labels, len(names))
        count = np.bincount(labels, minlength=len(names))
        table = np.zeros((len(names), len(outcomes.experts)))
        costs = np.zeros_like(table)
        np.add.at(table, labels, outcomes.scores)
        np.add.at(costs, labels, outcomes.costs)
        self.learned["domain_scores"] = table / count[:, None]
        self.learned["domain_costs"] = costs / count[:, None]
        self.learned["count"] = count
        self.facts["domains"] = names
        self.facts["serving"] = self._serving()

    def _labels(self, outcomes: Outcomes, vectors: Any) -> tuple[NDArray[np.intp], list[str]]:
        if self.tag is None:
            from sklearn.cluster import KMeans

            count = min(self.clusters, len(vectors))
            found = KMeans(count, n_init=3, random_state=self.seed % 2**32).fit_predict(vectors)
            names, labels = np.unique(found, return_inverse=True)
            return labels, [f"cluster {name}" for name in names]
        tags = outcomes.tags(self.tag)
        if None in tags:
            raise InputError(
                f"question {outcomes.questions[tags.index(None)][:60]!r} has no `{self.tag}` in "
                "its meta: name another tag, or none to have domains found"
            )
        names, labels = np.unique(np.array(tags, dtype=str), return_inverse=True)
        return labels, [str(name) for name in names]

    def _classify(self, vectors: Any, labels: NDArray[np.intp], domains: int) -> None:
        """Logistic regression of domain on vector: class weights (domains, d) and biases."""
        size = vectors.shape[1]
        self.learned["weights"] = np.zeros((domains, size))
        self.learned["bias"] = np.zeros(domains)
        if domains == 1:
            return
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=10.0, max_iter=200).fit(vectors, labels)
        if domains == 2:  # scikit-learn then has one row: that of the second against the first
            self.learned["weights"][1], self.learned["bias"][1] = (
                fitted.coef_[0],
                fitted.intercept_[0],
            )
        else:
            self.learned["weights"], self.learned["bias"] = fitted.coef_, fitted.intercept_

    def _serving(self) -> list[int]:
        """Columns of the experts that serve: all, or those that the integer program takes."""
        names = self.experts
        if self.budget is None:
            return list(range(len(names)))
        from scipy.optimize import Bounds, LinearConstraint, milp

        given = self.sizes or {}
        sizes = np.array([given.get(name, 1.0) for name in names])
        table = self.learned["domain_scores"] * self.learned["count"][:, None]
        domains, experts = table.shape
        # Variables: does expert j serve (m), then does it serve domain i (domains × m).
        gain = np.concatenate([np.zeros(experts), -table.ravel()])
        one_each = np.zeros((domains, len(gain)))
        only_serving = np.zeros((domains * experts, len(gain)))
        for i in range(domains):
            for j in range(experts):
                at = experts + i * experts + j
                one_each[i, at] = 1
                only_serving[i * experts + j, [at, j]] = 1, -1
        room = np.concatenate([sizes, np.zeros(domains * experts)])
        solved = milp(
            gain,
            integrality=np.ones(len(gain)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(only_serving, -np.inf, 0),
                LinearConstraint(room[None], -np.inf, self.budget),
            ],
        )
        if solved.x is None:
            raise InputError(
                f"`budget` is {self.budget:g}: must be at least the size of an expert, the "
                f"smallest of which is {sizes.min():g}"
            )
        return [int(j) for j in np.flatnonzero(solved.x[:experts] > 0.5)]

    def without(self, gone: Sequence[str]) -> Self:
        """Those that serve and are left go on; if none is, all that are left serve."""
        names = self.experts
        router = super().without(gone)
        left = [names[j] for j in self.facts["serving"] if names[j] not in set(gone)]
        if not left and self.budget is not None:
            raise PoolError("router `domains`: all experts that its budget had room for are gone")
        router.facts["serving"] = [router.experts.index(name) for name in left]
        return router

    def guesses(self, questions: Sequence[str]) -> tuple[NDArray[np.intp], Floats]:
        """(n,) numbers of domains, and the (n,) probabilities of being right."""
        logits = self.vectors(questions) @ self.learned["weights"].T + self.learned["bias"]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return logits.argmax(axis=1), powers.max(axis=1) / powers.sum(axis=1)

    def estimates(self, questions: Sequence[str]) -> Floats:
        guessed, sure = self.guesses(questions)
        values = self.learned["domain_scores"][guessed]
        values = np.where((sure >= self.unsure)[:, None], values, self.learned["means"])
        allowed = np.zeros(len(self.experts), dtype=bool)
        allowed[self.facts["serving"]] = True
        served: Floats = np.where(allowed, values, -np.inf)
        return served

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        costs: Floats = self.learned["domain_costs"][self.guesses(questions)[0]]
        return costs
