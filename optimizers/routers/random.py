"""A random expert for each question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.base import Columns, Router


@dataclass(kw_only=True, eq=False)
class Random(Router):
    """Every expert as likely as any other; drawn from the seed and the question, so that a question
    has the same expert wherever and whenever it is asked."""

    name: ClassVar[str] = "random"

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        pass

    def route(self, questions: Sequence[str]) -> Columns:
        experts = len(self.experts)
        return np.array([self._draw(question) % experts for question in questions], dtype=np.intp)

    def _draw(self, question: str) -> int:
        """64 bits: of a cryptographic hash, remainders are as good as uniform."""
        text = question.encode("utf-8", "surrogatepass")
        key = self.seed.to_bytes(16, "little", signed=True)
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest(), "little")
