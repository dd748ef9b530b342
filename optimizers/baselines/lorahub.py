"""LoraHub (arXiv 2307.13269): gradient-free search for the coefficients of a mixture of adapters.

The paper minimises a loss by nevergrad's NGOpt, in 40 evaluations. Here the score is maximised, by
CMA-ES: the searcher that a role-step can use, too.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.errors import PoolError
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, BaselineSettings, Candidate, Score, mixed
from swarm.optimizers.pso import SwarmSettings
from swarm.optimizers.searchers.base import Searcher
from swarm.optimizers.searchers.cmaes import CMAES
from swarm.tasks import Task


class LoraHubSettings(BaselineSettings):
    """The knobs of `LoraHub`."""

    particles: int = Field(10, ge=2)
    """How many mixtures are scored an iteration."""
    iterations: int = Field(20, ge=1)
    """At most so many."""
    patience: int = Field(6, ge=1)
    """Stop when nothing better was found for so many iterations."""
    limit: float = Field(1.5, gt=0)
    """No coefficient is beyond ± this."""
    l1: float = Field(0.05, ge=0)
    """So much times the mean |c| is taken off a score when it is compared, as in the published
    code; the paper writes a sum."""
    seed: int = Field(0, ge=0)


class LoraHub(Baseline):
    """One expert, its adapter a mixture of all; the best one, the L1 term included.

    The search begins at coefficients of 0 (the base model), the first mixtures being uniform
    within the limits. Prompt, sampling and the like are the first expert's.
    """

    name: ClassVar[str] = "lorahub"
    _type = LoraHubSettings
    _settings: LoraHubSettings

    def check(self, pool: Pool) -> None:
        super().check(pool)
        Mixer(pool)
        for expert in pool.values():
            if expert.adapter is None and expert.script is None:
                raise PoolError(
                    f"expert `{expert.name}` is a whole model: LoraHub mixes adapters, since near "
                    "coefficients of 0 nothing is left of a model; `ModelSwarms` mixes either"
                )
        self._searcher(pool)

    def workload(self, pool: Pool) -> Workload:
        whole, how = super().workload(pool), self._settings
        return replace(
            whole, agents=whole.agents[:1], graphs=how.particles, iterations=how.iterations
        )

    def steps(self, pool: Pool) -> int:
        return self._settings.iterations

    def _searcher(self, pool: Pool) -> Searcher:
        how = self._settings
        rng = np.random.default_rng(how.seed)
        positions = rng.random((how.particles, len(pool)))
        patience = SwarmSettings(patience=how.patience)
        return CMAES(positions, rng, patience, iterations=how.iterations)

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        how, searcher, mixer = self._settings, self._searcher(pool), Mixer(pool)
        first = next(iter(pool))
        best, high = None, -math.inf
        while not searcher.done:
            # A searcher begins around 1/2: there are the coefficients 0.
            positions = np.clip(searcher.ask(), 0, 1)
            rows = how.limit * (2 * positions - 1)
            names = [f"lorahub@{searcher.iteration + 1}.{i + 1}" for i in range(len(rows))]
            candidates = [
                mixed(pool, mixer, first, row, name, how.role)
                for row, name in zip(rows, names, strict=True)
            ]
            scores = await score(candidates)
            values = np.array(scores) - how.l1 * np.abs(rows).mean(axis=1)
            top = int(np.argmax(values))
            if values[top] > high:
                best, high = candidates[top], float(values[top])
            searcher.tell(values, at=positions)
        assert best is not None
        return best
