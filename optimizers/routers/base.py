"""What every router is: learned from outcomes, it names one expert a question."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError, PoolError
from swarm.graphs.graph import DEFAULT_ROLE, AgentGraph
from swarm.graphs.topologies import single
from swarm.optimizers.embedding import Encoder, Vectors
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.runtime.policy import Arrays, Policy

Columns = NDArray[np.intp]
"""(n,): for each question the column of an expert."""


@dataclass(kw_only=True, eq=False)
class Router(Policy):
    """A policy whose graphs are single experts.

    Settings are the fields of the class, JSON values all, given when it is made. What it learns are
    the arrays in `learned` and the JSON values in `facts`; a subclass fills them in `_fit` and says
    in `axes` which arrays have an entry an expert, so that saving, loading and going on without an
    expert are the same for all. Thousands of questions are routed a second, embedding excluded.
    """

    name: ClassVar[str]
    axes: ClassVar[Mapping[str, int]] = {}
    """Learned array → the axis along which it has one entry an expert."""

    seed: int = 0
    role: str = DEFAULT_ROLE
    """That of the agents in its graphs: the one in which experts were asked alone."""
    learned: dict[str, NDArray[Any]] = field(init=False, repr=False, default_factory=dict)
    facts: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def fit(self, outcomes: Outcomes) -> Self:
        """Learns from `outcomes`, forgetting what it learned before.

        Raises:
            InputError: they lack what this router learns from.
        """
        self.facts = {"experts": list(outcomes.experts)}
        self.learned = {"means": outcomes.means, "costs": outcomes.costs.mean(axis=0)}
        self._fit(outcomes, np.random.default_rng(self.seed))
        return self

    @abstractmethod
    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        """Fills `learned` and `facts`, which hold the experts, their mean scores and costs."""

    @abstractmethod
    def route(self, questions: Sequence[str]) -> Columns:
        """For each question the column, in `experts`, of who answers it."""

    @property
    def experts(self) -> tuple[str, ...]:
        if not self.facts:
            raise InputError(f"router `{self.name}` has learned nothing yet: fit it first")
        return tuple(self.facts["experts"])

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        graphs = [single(expert, role=self.role) for expert in self.experts]
        return [graphs[column] for column in self.route(questions)] if questions else []

    def settings(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self._given().items()
            if isinstance(value, str | int | float | bool | NoneType)
        }

    def state(self) -> tuple[dict[str, Any], Arrays]:
        assert self.experts
        return {"settings": self._given(), "facts": self.facts}, self.learned

    def _given(self) -> dict[str, Any]:
        """All settings, JSON values, by their names."""
        fields = dataclasses.fields(self)
        return {each.name: getattr(self, each.name) for each in fields if each.init}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        router = cls(**values["settings"])
        router.facts = dict(values["facts"])
        router.learned = dict(arrays)
        return router

    def without(self, gone: Sequence[str]) -> Self:
        """The same router with the columns of these experts left out."""
        keep = [i for i, name in enumerate(self.experts) if name not in set(gone)]
        if not keep:
            raise PoolError(f"router `{self.name}` has no expert left: fit it with this pool")
        axes = {"means": 0, "costs": 0, **self.axes}
        values, arrays = self.state()
        left = {
            name: np.take(array, keep, axis=axes[name]) if name in axes else array
            for name, array in arrays.items()
        }
        facts = {**self.facts, "experts": [self.experts[i] for i in keep]}
        return self.from_state({**values, "facts": facts}, left)


@dataclass(kw_only=True, eq=False)
class Estimator(Router):
    """A router that estimates every expert's score, and chooses by score − trade-off × cost."""

    trade_off: float = 0.0
    """λ: the score that a USD a question is worth. It may be set at any time."""

    @abstractmethod
    def estimates(self, questions: Sequence[str]) -> Floats:
        """(n, m): what each expert is expected to score."""

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        """(n, m), USD: what each expert is expected to cost; the mean of each if not overridden."""
        costs: Floats = np.broadcast_to(self.learned["costs"], (len(questions), len(self.experts)))
        return costs

    def route(self, questions: Sequence[str]) -> Columns:
        return self.choose(self.less_cost(self.estimates(questions), questions))

    def less_cost(self, values: Floats, questions: Sequence[str]) -> Floats:
        """(n, m): `values` less `trade_off` times what each expert is expected to cost."""
        if not self.trade_off:
            return values
        less: Floats = values - self.trade_off * self.cost_estimates(questions)
        return less

    def choose(self, values: Floats) -> Columns:
        """(n,): the column of the highest value; of equal ones that of the better expert alone."""
        order = np.argsort(-self.learned["means"], kind="stable")
        chosen: Columns = order[np.argmax(values[:, order], axis=1)]
        return chosen


@dataclass(kw_only=True, eq=False)
class Embedded(Estimator):
    """An estimator that reads questions as vectors."""

    model: str | None = None
    """The encoder's model (`Encoder`); None: all-MiniLM-L6-v2."""
    _encoder: Encoder | None = field(init=False, repr=False, default=None)

    def vectors(self, questions: Sequence[str]) -> Vectors:
        """(n, d), float32: unit vectors."""
        return self.encoder(questions)

    @property
    def encoder(self) -> Encoder:
        """Made when it is first needed; one with a store of its own may be set."""
        if self._encoder is None:
            self._encoder = Encoder(self.model)
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        self.model, self._encoder = encoder.model, encoder

    def without(self, gone: Sequence[str]) -> Self:
        router = super().without(gone)
        router._encoder = self._encoder
        return router


def graded(outcomes: Outcomes) -> Floats:
    """(n, m): scores, or where `meta` has `soft_scores` (expert → number) of a question, those: how
    sure an expert was of a right answer. A training signal only."""
    grades = np.array(outcomes.scores)
    for row, meta in enumerate(outcomes.meta):
        soft = meta.get("soft_scores")
        if soft:
            grades[row] = [
                soft.get(name, grades[row, i]) for i, name in enumerate(outcomes.experts)
            ]
    return grades
