"""Searchers that draw every iteration's positions afresh, from a distribution they may learn."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError
from swarm.optimizers.pso import SwarmSettings, pack, restore_rng, unpack
from swarm.optimizers.searchers.base import Array, Searcher


class Sampler(Searcher):
    """What such searchers share: the best position, patience, and the state.

    The first positions are the given ones, so that all searchers start alike. A member says what
    it learns from scores (`_learn`), kept in `_learned`, and how it draws (`_draw`).

    Positions of shape (N, n, n) are adjacency matrices: their diagonals are not searched, and drawn
    as 0. Of `SwarmSettings` only `patience` applies.
    """

    def __init__(
        self,
        positions: Array,
        rng: np.random.Generator,
        settings: SwarmSettings | None = None,
        *,
        iterations: int = 20,
    ) -> None:
        positions = np.array(positions, dtype=np.float64)
        if positions.ndim < 2 or len(positions) < 2:
            raise InputError(f"positions of shape {positions.shape}: a search needs at least 2")
        if not np.isfinite(positions).all():
            raise InputError("positions must be finite")
        self.rng = rng
        self.iterations = iterations
        self.iteration = 0
        self.patience = (settings or SwarmSettings()).patience
        self._positions = positions
        self._best = positions[0]
        self._best_score = -math.inf
        self._stale = 0
        """Iterations since the best changed."""
        self._learned: dict[str, Array] = {}
        """What the distribution is made of; numbers are arrays without axes."""

    @property
    def best(self) -> Array:
        best: Array = self._best.copy()
        return best

    @property
    def best_score(self) -> float:
        return self._best_score

    @property
    def done(self) -> bool:
        return self.iteration >= self.iterations or self._stale >= self.patience

    def ask(self) -> Array:
        return self._positions.copy()

    def tell(self, scores: Array | list[float], at: Array | None = None) -> None:
        count = len(self._positions)
        given = np.array(scores, dtype=np.float64)
        if given.shape != (count,) or not np.isfinite(given).all():
            raise InputError(
                f"scores must be {count} finite numbers, one a position; got {scores!r}"
            )
        scored = self._positions if at is None else np.array(at, dtype=np.float64)
        top = int(np.argmax(given))
        self._stale += 1
        if given[top] > self._best_score:
            self._best, self._best_score = scored[top], float(given[top])
            self._stale = 0
        self._learn(scored[:, self._searched], given)
        self.iteration += 1
        self._positions = np.zeros_like(self._positions)
        self._positions[:, self._searched] = self._draw(count)

    @property
    def _searched(self) -> NDArray[np.bool_]:
        """Which entries of a position are searched, in the shape of one; d of them."""
        shape = self._positions.shape[1:]
        if len(shape) == 2 and shape[0] == shape[1]:
            return ~np.eye(shape[0], dtype=np.bool_)
        return np.ones(shape, dtype=np.bool_)

    @abstractmethod
    def _draw(self, count: int) -> Array:
        """Entries of the next positions, shape (count, d), with randomness from `rng` alone."""

    def _learn(self, entries: Array, scores: Array) -> None:
        """Takes up the scores (N,) of what was scored, `entries` (N, d)."""

    def state(self) -> dict[str, Any]:
        return {
            "iterations": self.iterations,
            "iteration": self.iteration,
            "patience": self.patience,
            "stale": self._stale,
            "positions": pack(self._positions),
            "best": pack(self._best),
            "best_score": pack(np.array(self._best_score)),
            "learned": {name: pack(array) for name, array in self._learned.items()},
            "rng": self.rng.bit_generator.state,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        searcher = cls.__new__(cls)
        searcher.rng = restore_rng(state["rng"])
        searcher.iterations = state["iterations"]
        searcher.iteration = state["iteration"]
        searcher.patience = state["patience"]
        searcher._stale = state["stale"]
        searcher._positions = unpack(state["positions"])
        searcher._best = unpack(state["best"])
        searcher._best_score = float(unpack(state["best_score"]))
        searcher._learned = {name: unpack(array) for name, array in state["learned"].items()}
        return searcher
