"""Greedy soup (Wortsman et al., arXiv 2203.05482, recipe 1): the mean of those that go together."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.graphs.topologies import single
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, Candidate, Score, mixed
from swarm.tasks import Task


class GreedySoup(Baseline):
    """Experts are tried in the order of their scores, the best first, and one goes into the soup if
    the mean with it scores no less than the mean without it.

    Prompt, sampling and the like are the best expert's.
    """

    name: ClassVar[str] = "greedy_soup"

    def check(self, pool: Pool) -> None:
        super().check(pool)
        Mixer(pool)

    def workload(self, pool: Pool) -> Workload:
        # All alone, and then a soup for each but the best, who may be any of them.
        return replace(super().workload(pool), graphs=2)

    def steps(self, pool: Pool) -> int:
        return len(pool)

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        names, role, mixer = list(pool), self._settings.role, Mixer(pool)
        alone = [Candidate(single(name, role=role), pool) for name in names]
        scores = await score(alone)
        best, *others = np.argsort(-np.array(scores), kind="stable").tolist()
        soup: Candidate = alone[best]
        high, ingredients = scores[best], [best]
        for tried, expert in enumerate(others, start=1):
            row = np.zeros(len(names))
            row[[*ingredients, expert]] = 1 / (len(ingredients) + 1)
            candidate = mixed(pool, mixer, names[best], row, f"soup@{tried}", role)
            [value] = await score([candidate])
            if value >= high:
                soup, high = candidate, value
                ingredients.append(expert)
        return soup
