"""The best expert for each question, known beforehand: what no router can beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Estimator


@dataclass(kw_only=True, eq=False)
class Oracle(Estimator):
    """For tables: it is fitted with the outcomes that it is then judged by, and knows no others.

    Of experts with the same score it takes the cheapest, then the one that is better alone.
    """

    name: ClassVar[str] = "oracle"
    axes: ClassVar = {"scores": 1, "each_cost": 1}

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        keys = [_key(question) for question in outcomes.questions]
        # A question that is there twice has its first outcomes.
        self.learned["keys"], rows = np.unique(np.array(keys, np.int64), return_index=True)
        self.learned["scores"] = outcomes.scores[rows]
        self.learned["each_cost"] = outcomes.costs[rows]

    def estimates(self, questions: Sequence[str]) -> Floats:
        rows = self._rows(questions)
        highest = self.learned["each_cost"].max() or 1.0
        estimates: Floats = (
            self.learned["scores"][rows] - 1e-9 * self.learned["each_cost"][rows] / highest
        )
        return estimates

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        costs: Floats = self.learned["each_cost"][self._rows(questions)]
        return costs

    def _rows(self, questions: Sequence[str]) -> NDArray[np.intp]:
        keys = np.array([_key(question) for question in questions], np.int64)
        known = self.learned["keys"]
        rows: NDArray[np.intp] = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        for question, found in zip(questions, known[rows] == keys, strict=True):
            if not found:
                raise InputError(f"the oracle knows nothing of {question[:60]!r}: it is for tables")
        return rows


def _key(question: str) -> int:
    """63 bits that stand for the question."""
    text = question.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
