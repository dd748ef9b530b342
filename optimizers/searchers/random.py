"""Random search: what every other searcher has to beat."""

from __future__ import annotations

import math

from swarm.optimizers.searchers.base import Array
from swarm.optimizers.searchers.sampling import Sampler


class RandomSearch(Sampler):
    """Fresh positions every iteration, uniform in [0, 1) whatever the scores were.

    So the positions that were scored (`at`) matter only as the best one.
    """

    def decided(self, i: int, low: float, high: float, floor: float = math.inf) -> bool:
        """A score that is no better than the best moves nothing at all."""
        return high <= self.best_score

    def _draw(self, count: int) -> Array:
        return self.rng.random((count, int(self._searched.sum())))
