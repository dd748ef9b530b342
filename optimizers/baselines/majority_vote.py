"""Majority vote: all experts answer alone, and the answer that most of them give is the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from swarm.agents.expert import Pool
from swarm.graphs.graph import name_agents
from swarm.graphs.topologies import star
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, Candidate, Score
from swarm.optimizers.voting import vote_counter
from swarm.tasks import Task


class MajorityVote(Baseline):
    """The first response of those that give the most frequent answer; see `voting.Count`.

    A question on which an expert's call fails has no vote: its trace fails, as that of any graph.
    """

    name: ClassVar[str] = "majority_vote"

    def workload(self, pool: Pool) -> Workload:
        # Who counts is none of the pool: no more than another answer of its last.
        experts = [*pool, list(pool)[-1]]
        return replace(super().workload(pool), agents=name_agents(experts, self._settings.role))

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        name = "vote"
        while name in pool:
            name += "'"
        examples = (example for split in task.splits.values() for example in split)
        known = {example.prompt: example for example in examples}
        count = vote_counter(name, pool, task.scorer, len(pool), known)
        voting = pool.of([*pool.values(), count])
        candidate = Candidate(star([*pool, name], roles=self._settings.role), voting)
        await score([candidate])
        return candidate
