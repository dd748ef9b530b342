"""The best of some random graphs: what a search for graphs has to beat."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from swarm.agents.expert import Pool
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, BaselineSettings, Candidate, Score
from swarm.optimizers.role_step import random_graphs
from swarm.tasks import Task


class RandomGraphsSettings(BaselineSettings):
    """The knobs of `RandomGraphs`."""

    graphs: int = Field(30, ge=1)
    """How many are drawn; a role-step scores `particles` times `iterations`."""
    top_p: float = Field(0.0, ge=0, le=1)
    """p of G-Decode."""
    seed: int = Field(0, ge=0)


class RandomGraphs(Baseline):
    """Graphs of all experts as a role-step starts with; the best one."""

    name: ClassVar[str] = "random_graphs"
    _type = RandomGraphsSettings
    _settings: RandomGraphsSettings

    def workload(self, pool: Pool) -> Workload:
        return replace(
            super().workload(pool), graphs=self._settings.graphs, seed=self._settings.seed
        )

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        how = self._settings
        graphs = random_graphs(pool, how.graphs, seed=how.seed, top_p=how.top_p, role=how.role)
        candidates = [Candidate(graph, pool) for graph in graphs]
        return candidates[int(np.argmax(await score(candidates)))]
