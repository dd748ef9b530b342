"""What proposes positions in a role-step: continuous adjacency matrices, by ask and tell."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from swarm.optimizers.pso import SwarmSettings

Array = NDArray[np.float64]


class Searcher(ABC):
    """Maximises a function of arrays; the caller evaluates.

    ```
    while not searcher.done:
        searcher.tell([f(x) for x in searcher.ask()])
    ```

    All randomness comes from `rng`, which is the caller's, too; its state is part of `state()`.
    """

    rng: np.random.Generator
    iterations: int
    """`tell` is called at most so many times."""
    iteration: int
    """How many times `tell` was called."""

    @abstractmethod
    def __init__(
        self,
        positions: Array,
        rng: np.random.Generator,
        settings: SwarmSettings | None = None,
        *,
        iterations: int = 20,
    ) -> None:
        """`positions`, shape (N, ...), uniform in [0, 1), are where the search begins.

        Raises:
            InputError: fewer than two positions, or some that are not finite.
        """

    @property
    @abstractmethod
    def best(self) -> Array:
        """The best position so far."""

    @property
    @abstractmethod
    def best_score(self) -> float:
        """Its score; −∞ before the first `tell`."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether there is nothing more to ask: out of iterations, or of patience."""

    @abstractmethod
    def ask(self) -> Array:
        """The positions to score next, shape (N, ...). Asking twice gives the same."""

    @abstractmethod
    def tell(self, scores: Array | list[float], at: Array | None = None) -> None:
        """Takes the scores of what `ask` gave, higher is better.

        `at`, shape (N, ...), are the positions that were scored where these are not what `ask`
        gave.

        Raises:
            InputError: not one finite score a position.
        """

    def decided(self, i: int, low: float, high: float, floor: float = math.inf) -> bool:
        """Whether the i-th score may be any number in [low, high] without a difference to the rest
        of the search, if another score of this iteration is `floor` or less. False where every
        score counts. (If it is true, `low` is what to tell.)"""
        return False

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All of it as JSON values; `restore` gives a searcher that goes on bit for bit."""

    @classmethod
    @abstractmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The searcher that `state` was taken from."""
