"""The best expert for each question, known beforehand: what no router can beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.errors import InputError
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.base import Columns, Router


@dataclass(kw_only=True, eq=False)
class Oracle(Router):
    """For tables: it is fitted with the outcomes that it is then judged by, and knows no others.

    Of experts with the same score it takes the cheapest, then the one that is better alone. With a
    trade-off it maximises score − trade-off × cost.
    """

    name: ClassVar[str] = "oracle"
    axes: ClassVar = {"scores": 1, "each_cost": 1}

    trade_off: float = 0.0

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        keys = [_key(question) for question in outcomes.questions]
        self.learned["keys"], rows = np.unique(np.array(keys, np.uint64), return_index=True)
        self.learned["scores"] = outcomes.scores[rows]
        self.learned["each_cost"] = outcomes.costs[rows]

    def route(self, questions: Sequence[str]) -> Columns:
        keys = np.array([_key(question) for question in questions], np.uint64)
        rows = np.minimum(
            np.searchsorted(self.learned["keys"], keys), len(self.learned["keys"]) - 1
        )
        for question, found in zip(questions, self.learned["keys"][rows] == keys, strict=True):
            if not found:
                raise InputError(f"the oracle knows nothing of {question[:60]!r}: it is for tables")
        scores, costs = self.learned["scores"][rows], self.learned["each_cost"][rows]
        worst = np.broadcast_to(-self.learned["means"], scores.shape)
        ranks = np.lexsort((worst, costs, -(scores - self.trade_off * costs)), axis=1)
        best: Columns = ranks[:, 0]
        return best


def _key(question: str) -> int:
    """64 bits that stand for the question."""
    text = question.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
