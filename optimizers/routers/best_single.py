"""The expert that scores best alone, whatever the question. The simplest router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Estimator


@dataclass(kw_only=True, eq=False)
class BestSingle(Estimator):
    """What a router must beat. With a trade-off: the expert that is best for its money."""

    name: ClassVar[str] = "best_single"

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        pass  # means and costs are all it needs

    def estimates(self, questions: Sequence[str]) -> Floats:
        means: Floats = np.broadcast_to(self.learned["means"], (len(questions), len(self.experts)))
        return means
