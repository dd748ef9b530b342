"""The best single expert: what every system has to beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from swarm.agents.expert import Pool
from swarm.graphs.topologies import single
from swarm.optimizers.baselines.base import Baseline, Candidate, Score
from swarm.tasks import Task


class BestSingle(Baseline):
    """Every expert alone; the best one, the first in the pool's order of several."""

    name: ClassVar[str] = "best_single"

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        candidates = [Candidate(single(name, role=self._settings.role), pool) for name in pool]
        return candidates[int(np.argmax(await score(candidates)))]
