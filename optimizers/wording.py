"""The wording of a question chooses its expert: the simplest optimizer of a policy.

A question goes to the expert that has scored most on questions with the same words. It needs no
embedding, no package and no training, so it is what a router has to beat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from swarm.errors import PoolError
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import single
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.policy import PolicyOptimizer, PolicySettings
from swarm.runtime.policy import Arrays, Policy


class Wording(Policy):
    """Question → the expert of which its words speak best.

    A question is estimated to score with an expert what its words have scored with it, on average
    over the different words; words that were never seen say nothing. Ties, and questions without
    a known word, go to the expert that is best over all.
    """

    name: ClassVar[str] = "wording"

    def __init__(
        self, experts: Sequence[str], means: Floats, words: Sequence[str], scores: Floats, role: str
    ) -> None:
        """`means`: (m,), what each expert scores; `scores`: (words, m), where a word occurs."""
        self._experts = tuple(experts)
        self._means = np.asarray(means, dtype=np.float64)
        self._words = {word: i for i, word in enumerate(words)}
        self._scores = np.asarray(scores, dtype=np.float64)
        self._role = role
        self._graphs = [single(name, role=role) for name in self._experts]

    @property
    def experts(self) -> tuple[str, ...]:
        return self._experts

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        # The best over all comes first, so that ties are its own.
        order = np.argsort(-self._means, kind="stable")
        return [self._graphs[order[np.argmax(self._estimate(q)[order])]] for q in questions]

    def _estimate(self, question: str) -> Floats:
        known = [self._words[word] for word in sorted(words_of(question)) if word in self._words]
        estimate: Floats = self._scores[known].mean(axis=0) if known else self._means
        return estimate

    def state(self) -> tuple[dict[str, Any], Arrays]:
        values = {"experts": list(self._experts), "words": list(self._words), "role": self._role}
        return values, {"means": self._means, "scores": self._scores}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        experts, words = values["experts"], values["words"]
        means, scores = arrays["means"], arrays["scores"]
        if means.shape != (len(experts),) or scores.shape != (len(words), len(experts)):
            raise ValueError(f"arrays of {means.shape} and {scores.shape} do not fit its experts")
        return cls(experts, means, words, scores, values["role"])

    def without(self, gone: Sequence[str]) -> Policy:
        left = [j for j, name in enumerate(self._experts) if name not in gone]
        if not left:
            raise PoolError(f"policy `{self.name}` has no expert left: fit it again with this pool")
        names = [self._experts[j] for j in left]
        return type(self)(
            names, self._means[left], list(self._words), self._scores[:, left], self._role
        )


class WordingSettings(PolicySettings):
    """The knobs of `WordingOptimizer`."""

    prior: float = Field(2.0, gt=0)
    """A word counts as if it had also been in so many questions with the expert's mean score, so
    that what was seen once says little."""


class WordingOptimizer(PolicyOptimizer):
    """Fits `Wording`: what each expert scores on the questions with each word."""

    name: ClassVar[str] = "wording"
    _type = WordingSettings
    _settings: WordingSettings

    def learn(self, outcomes: Outcomes) -> Wording:
        texts = [words_of(question) for question in outcomes.questions]
        words = sorted(set().union(*texts))
        number = {word: i for i, word in enumerate(words)}
        total = np.zeros((len(words), len(outcomes.experts)))
        count = np.zeros((len(words), 1))
        for text, scores in zip(texts, outcomes.scores, strict=True):
            rows = [number[word] for word in text]
            total[rows] += scores
            count[rows] += 1
        prior = self._settings.prior
        means = outcomes.means
        estimates = (total + prior * means) / (count + prior)
        return Wording(outcomes.experts, means, words, estimates, self._settings.role)


def words_of(text: str) -> set[str]:
    """The different words of a text: runs of letters or digits, and other characters alone."""
    return set(re.findall(r"\w+|[^\w\s]", text.lower()))
