"""A fixed topology: a chain of all experts."""

from __future__ import annotations

from typing import ClassVar

from swarm.agents.expert import Pool
from swarm.graphs.topologies import chain
from swarm.optimizers.baselines.base import Baseline, Candidate, Score
from swarm.tasks import Task


class Chain(Baseline):
    """All experts in the pool's order; each reads the one before it."""

    name: ClassVar[str] = "chain"

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        candidate = Candidate(chain(list(pool), roles=self._settings.role), pool)
        await score([candidate])
        return candidate
