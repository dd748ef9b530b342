"""A fixed topology: a star of all experts."""

from __future__ import annotations

from typing import ClassVar

from swarm.agents.expert import Pool
from swarm.graphs.topologies import star
from swarm.optimizers.baselines.base import Baseline, Candidate, Score
from swarm.tasks import Task


class Star(Baseline):
    """All experts in the pool's order; the last reads all the others."""

    name: ClassVar[str] = "star"

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        candidate = Candidate(star(list(pool), roles=self._settings.role), pool)
        await score([candidate])
        return candidate
