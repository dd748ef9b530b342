"""Uniform soup (Wortsman et al., arXiv 2203.05482): one expert with the mean of all weights."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, Candidate, Score, mixed
from swarm.tasks import Task


class UniformSoup(Baseline):
    """The mean of all experts' weights; prompt, sampling and the like are those of the first.

    Of adapters, LoRA's A and B are averaged each on their own.
    """

    name: ClassVar[str] = "uniform_soup"

    def check(self, pool: Pool) -> None:
        super().check(pool)
        Mixer(pool)

    def workload(self, pool: Pool) -> Workload:
        whole = super().workload(pool)
        return replace(whole, agents=whole.agents[:1])

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        first, n = next(iter(pool)), len(pool)
        mean = np.full(n, 1 / n)
        candidate = mixed(pool, Mixer(pool), first, mean, "soup", self._settings.role)
        await score([candidate])
        return candidate
