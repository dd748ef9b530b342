"""Separable CMA-ES (Ros & Hansen 2008): a normal distribution that follows the best positions.

The covariance matrix is kept diagonal. A full one of n = 10 experts' 90 edges would learn next to
nothing from the few hundred positions that a role-step scores, and make up most of the state.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from swarm.errors import InputError
from swarm.optimizers.pso import SwarmSettings
from swarm.optimizers.searchers.base import Array
from swarm.optimizers.searchers.sampling import Sampler

if TYPE_CHECKING:
    from cmaes import SepCMA

LIMIT = 1e6
"""No entry gets beyond ±LIMIT: on an endless slope, steps would grow until they overflow."""
_LEARNED = ("_mean", "_sigma", "_C", "_p_sigma", "_pc")
"""All that changes in a `SepCMA`, as its `__getstate__` names it, but for the generation, which is
our iteration, and what only its own stopping rules read. `_C` is the covariances' diagonal."""


class CMAES(Sampler):
    """The update is the `cmaes` package's; the population is the N positions.

    Mean and step size begin at those of the uniform distribution that the first positions are from.
    There are no bounds to speak of (`LIMIT`), as there are none for particles.
    Where other positions were scored than those drawn (`at`), the distribution learns from these:
    they are injected solutions (arXiv 1110.4181), without its shortening of long steps.
    Every score counts, by its rank.
    """

    def __init__(
        self,
        positions: Array,
        rng: np.random.Generator,
        settings: SwarmSettings | None = None,
        *,
        iterations: int = 20,
    ) -> None:
        """See `Searcher`.

        Raises:
            InputError: as there, or a single entry to search.
        """
        super().__init__(positions, rng, settings, iterations=iterations)
        d = int(self._searched.sum())
        if d < 2:
            raise InputError(f"positions with {d} entries to search: CMA-ES needs at least 2")
        self._learned = {
            "_mean": np.full(d, 0.5),
            "_sigma": np.array(1 / math.sqrt(12)),
            "_C": np.ones(d),
            "_p_sigma": np.zeros(d),
            "_pc": np.zeros(d),
        }

    def _learn(self, entries: Array, scores: Array) -> None:
        optimizer = self._optimizer()
        optimizer.tell([(x, -score) for x, score in zip(entries, scores.tolist(), strict=True)])
        state = optimizer.__getstate__()
        self._learned = {name: np.array(state[name], dtype=np.float64) for name in _LEARNED}

    def _draw(self, count: int) -> Array:
        optimizer = self._optimizer()
        # Its random state is no part of its state: it gets a seed of ours whenever it draws.
        optimizer.reseed_rng(int(self.rng.integers(2**32)))
        drawn = np.array([optimizer.ask() for _ in range(count)])
        within: Array = np.clip(drawn, -LIMIT, LIMIT)
        return within

    def _optimizer(self) -> SepCMA:
        """Made anew from what was learned, so that a restored search can't differ from this one."""
        from cmaes import SepCMA

        learned = self._learned
        optimizer = SepCMA(
            mean=learned["_mean"],
            sigma=learned["_sigma"].item(),
            population_size=len(self._positions),
            seed=0,
        )
        # Copies: it adds to its mean in place.
        changed = {name: array.copy() for name, array in learned.items() if array.ndim}
        optimizer.__setstate__({**changed, "_g": self.iteration})
        return optimizer
