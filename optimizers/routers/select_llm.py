"""SelectLLM: a few experts a question, those likeliest to know, and a vote of their answers.

SelectLLM (arXiv 2408.08545): a multi-label classifier says how sure it is that each expert answers
the question rightly; the policy takes the surest ones, and the answer is a vote that counts each by
how sure it was (WeightedMaxConf). Here a vote counts log(p (c − 1) / (1 − p)), with which it is the
likeliest answer if experts err independently among c choices (Nitzan and Paroush, 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from swarm.errors import PoolError
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import star
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns, Embedded
from swarm.optimizers.routers.knn import best_k, nearest, neighbour_means

PRIORS = (0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0)


@dataclass(kw_only=True, eq=False)
class SelectLLM(Embedded):
    """The graph of a question is its `calls` surest experts, read by `aggregator`.

    How sure: the expert's score on the question's nearest known ones, shrunk towards its mean over
    all by `prior` questions.
    """

    name: ClassVar[str] = "select_llm"
    axes: ClassVar = {"scores": 1}

    calls: int = 3
    """Experts a question, at most; `aggregator` is not counted."""
    aggregator: str | None = None
    """The expert that reads their answers; None: the surest expert itself, as the end node."""
    neighbours: int | None = None
    """None: chosen by leave-one-out."""
    prior: float | None = None
    """None: the one of `PRIORS` with the smallest squared error by leave-one-out."""
    choices: int = 4
    """c: how many answers a question has that experts can choose from."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        self.learned["vectors"] = self.vectors(outcomes.questions)
        self.learned["scores"] = outcomes.scores.astype(np.float32)
        k = self.neighbours
        if k is None:
            k = best_k(self.learned["vectors"], outcomes.scores, outcomes.scores)
        k = self.facts["neighbours"] = min(k, len(outcomes))
        self.facts["prior"] = PRIORS[-1] if self.prior is None else self.prior
        if self.prior is None and k < len(outcomes):
            vectors, scores = self.learned["vectors"], outcomes.scores
            rows = nearest(vectors, vectors, k, leave_out=True)
            near = np.concatenate([scores[each].mean(axis=1) for each in rows])
            errors = [np.square(self._shrunk(near, prior) - scores).mean() for prior in PRIORS]
            self.facts["prior"] = PRIORS[int(np.argmin(errors))]

    def estimates(self, questions: Sequence[str]) -> Floats:
        known, k = self.learned["scores"], self.facts["neighbours"]
        near = neighbour_means(self.vectors(questions), self.learned["vectors"], known, k)
        return self._shrunk(near, self.facts["prior"])

    def _shrunk(self, near: Floats, prior: float) -> Floats:
        k = self.facts["neighbours"]
        shrunk: Floats = (k * near + prior * self.learned["means"]) / (k + prior)
        return shrunk

    def select(self, questions: Sequence[str]) -> tuple[Columns, Floats]:
        """(n, k) columns, the surest first, and (n, k) weights of their answers in a vote."""
        values = self.estimates(questions)
        if self.trade_off:
            values = values - self.trade_off * self.cost_estimates(questions)
        order = np.argsort(-self.learned["means"], kind="stable")
        ranked = order[np.argsort(-values[:, order], axis=1, kind="stable")]
        chosen = ranked[:, : self.calls]
        sure = np.clip(np.take_along_axis(values, chosen, axis=1), 0.01, 0.99)
        return chosen, np.log(sure * (self.choices - 1) / (1 - sure))

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        if not questions:
            return []
        names = self.experts
        made: dict[tuple[int, ...], AgentGraph] = {}
        graphs = []
        for row in self.select(questions)[0]:
            key = tuple(row)
            if key not in made:
                chosen = [names[column] for column in row]
                made[key] = self._graph(chosen)
            graphs.append(made[key])
        return graphs

    def _graph(self, chosen: Sequence[str]) -> AgentGraph:
        if self.aggregator is not None:
            return star([*chosen, self.aggregator], roles=self.role)
        # A star of one is that one alone.
        return star([*chosen[1:], chosen[0]], roles=self.role)

    def without(self, gone: Sequence[str]) -> Self:
        if self.aggregator in gone:
            raise PoolError(
                f"router `{self.name}`: its aggregator `{self.aggregator}` is gone: name another"
            )
        return super().without([name for name in gone if name != self.aggregator])


def weighted_vote(
    answers: Sequence[Sequence[str | None]],
    chosen: Columns,
    weights: Floats,
) -> list[str | None]:
    """For each question the answer with the most weight among those of its chosen experts.

    Ties go to the answer of who is named first. None, for no answer, has no vote.

    Args:
        answers: n × m.
        chosen: (n, k) columns of them.
        weights: (n, k).
    """
    winners: list[str | None] = []
    for row, columns, each in zip(answers, chosen, weights, strict=True):
        count: dict[str, float] = {}
        for column, weight in zip(columns, each, strict=True):
            if (answer := row[int(column)]) is not None:
                count[answer] = count.get(answer, 0.0) + float(weight)
        winners.append(max(count, key=lambda answer: count[answer]) if count else None)
    return winners
