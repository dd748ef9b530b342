"""SelectLLM: a few experts a question, those likeliest to know, and a vote of their answers.

SelectLLM (arXiv 2408.08545): a multi-label classifier says how sure it is that each expert answers
the question rightly; the policy takes the surest ones, and the answer is a vote that counts each by
how sure it was (WeightedMaxConf). Here a vote counts log(p (c − 1) / (1 − p)), with which it is the
likeliest answer if experts err independently among c choices (Nitzan and Paroush, 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns
from swarm.optimizers.routers.knn import best_k, nearest, neighbour_means
from swarm.optimizers.routers.panel import Panel
from swarm.optimizers.voting import heaviest

PRIORS = (0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0)


@dataclass(kw_only=True, eq=False)
class SelectLLM(Panel):
    """The `calls` surest experts of a question.

    How sure: the expert's score on the question's nearest known ones, shrunk towards its mean over
    all by `prior` questions.
    """

    name: ClassVar[str] = "select_llm"
    axes: ClassVar = {"scores": 1}

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
        values = self.less_cost(self.estimates(questions), questions)
        chosen = self.highest(values)
        sure = np.clip(np.take_along_axis(values, chosen, axis=1), 0.01, 0.99)
        return chosen, np.log(sure * (self.choices - 1) / (1 - sure))


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
    return [
        heaviest([row[int(column)] for column in columns], each)
        for row, columns, each in zip(answers, chosen, weights, strict=True)
    ]
