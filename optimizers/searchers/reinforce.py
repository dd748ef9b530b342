"""Learned edge probabilities: GPTSwarm's edge optimization by REINFORCE (arXiv 2402.16823).

Every ordered pair of experts has a logit θ; a graph's edges e are drawn independently, with
probability σ(θ). The graph's score u moves the logits along the gradient of E[u]:
∇ = mean over graphs of (u − b) ∇ log P(e), where ∇ log P(e) = e − σ(θ) and b is a baseline.

The constants are those of the published code, of its crosswords experiment, which is nearest to a
role-step in size (11 iterations of 20 graphs). Departures from it:

- what is drawn is a matrix, and G-Decode makes a graph of it, drawn edges before others. There, an
  edge that would close a cycle is not drawn at all and has no part in the gradient;
- all pairs begin at probability ½ (as in its MMLU experiment), so that the first matrices are the
  uniform ones that every searcher begins with;
- its baseline is per question; here every graph is scored on all of them.
"""

from __future__ import annotations

import numpy as np

from swarm.optimizers.pso import SwarmSettings
from swarm.optimizers.searchers.base import Array
from swarm.optimizers.searchers.sampling import Sampler

LEARNING_RATE = 0.4
"""Of Adam. (Its MMLU experiment, with 50 iterations, takes 0.1.)"""
WINDOW = 10
"""The baseline is the mean score of so many iterations, the current one included."""
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
"""Adam's own defaults (arXiv 1412.6980, algorithm 1)."""


class Reinforce(Sampler):
    """An entry is (e + σ(θ)) / 2: an edge is drawn where it is ½ or more, and between two edges
    that are both drawn, or both not, the likelier one has the larger entry.

    So every matrix says which edges it stands for, also one that was moved (`at`): the logits learn
    from the edges that were scored, as if they had been drawn. Every score counts.
    """

    def __init__(
        self,
        positions: Array,
        rng: np.random.Generator,
        settings: SwarmSettings | None = None,
        *,
        iterations: int = 20,
    ) -> None:
        super().__init__(positions, rng, settings, iterations=iterations)
        d = int(self._searched.sum())
        self._learned = {
            "logits": np.zeros(d),
            "momentum": np.zeros(d),
            "variance": np.zeros(d),
            "means": np.zeros(0),
        }

    @property
    def probabilities(self) -> Array:
        """σ(θ), in the shape of a position; 0 where nothing is searched."""
        probabilities = np.zeros(self._positions.shape[1:])
        probabilities[self._searched] = _sigmoid(self._learned["logits"])
        return probabilities

    def _learn(self, entries: Array, scores: Array) -> None:
        logits = self._learned["logits"]
        means = np.append(self._learned["means"], scores.mean())[-WINDOW:]
        advantage = scores - means.mean()
        edges = entries >= 0.5
        gradient = (advantage[:, None] * (edges - _sigmoid(logits))).mean(axis=0)

        t = self.iteration + 1
        momentum = _BETA_1 * self._learned["momentum"] + (1 - _BETA_1) * gradient
        variance = _BETA_2 * self._learned["variance"] + (1 - _BETA_2) * gradient**2
        unbiased = momentum / (1 - _BETA_1**t)
        scale = np.sqrt(variance / (1 - _BETA_2**t)) + _EPSILON
        self._learned = {
            "logits": logits + LEARNING_RATE * unbiased / scale,
            "momentum": momentum,
            "variance": variance,
            "means": means,
        }

    def _draw(self, count: int) -> Array:
        probabilities = _sigmoid(self._learned["logits"])
        edges = self.rng.random((count, len(probabilities))) < probabilities
        entries: Array = (edges + probabilities) / 2
        return entries


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))
