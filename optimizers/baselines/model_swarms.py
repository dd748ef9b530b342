"""Model Swarms (arXiv 2410.11163): experts are particles in weight space, by their own scores.

The swarm is that of Heterogeneous Swarms' weight-step, with another utility: what an expert scores
alone, in place of what it is worth to a graph.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.graphs.topologies import single
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, BaselineSettings, Candidate, Score, mixed
from swarm.optimizers.pso import ParticleSwarm, SwarmSettings
from swarm.optimizers.weight_step import weight_swarm
from swarm.tasks import Task


class ModelSwarmsSettings(SwarmSettings, BaselineSettings):
    """The knobs of `ModelSwarms`: those of the swarm. Their defaults are Heterogeneous Swarms', so
    that the two compare."""

    iterations: int = Field(20, ge=1)
    """At most so many."""
    seed: int = Field(0, ge=0)
    randomness: Literal["scalar", "none"] = "scalar"
    """One number a particle, or just 1: numbers an entry would leave the span of the weights."""


class ModelSwarms(Baseline):
    """The best expert that a swarm of all of them has come by.

    The swarm is the experts themselves: the paper's is enlarged by crossovers of pairs.
    """

    name: ClassVar[str] = "model_swarms"
    _type = ModelSwarmsSettings
    _settings: ModelSwarmsSettings

    def check(self, pool: Pool) -> None:
        super().check(pool)
        Mixer(pool)
        self._swarm(pool)

    def workload(self, pool: Pool) -> Workload:
        return replace(super().workload(pool), iterations=self._settings.iterations)

    def steps(self, pool: Pool) -> int:
        return self._settings.iterations

    def _swarm(self, pool: Pool) -> ParticleSwarm:
        how = self._settings
        rng = np.random.default_rng(how.seed)
        return weight_swarm(len(pool), rng, how.of_swarm(), iterations=how.iterations)

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        swarm, mixer, role = self._swarm(pool), Mixer(pool), self._settings.role
        candidates = [Candidate(single(name, role=role), pool) for name in pool]
        best, high = None, -math.inf
        while not swarm.done:
            scores = await score(candidates)
            top = int(np.argmax(scores))
            if scores[top] > high:
                best, high = candidates[top], scores[top]
            swarm.tell(scores)
            candidates = [
                mixed(pool, mixer, name, row, f"{name}@{swarm.iteration}", role)
                for name, row in zip(pool, swarm.ask(), strict=True)
            ]
        assert best is not None
        return best
