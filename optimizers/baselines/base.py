"""What baselines share: a recorded job. A member says what is scored and what is chosen."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.agents.role import find_role
from swarm.graphs.graph import DEFAULT_ROLE, AgentGraph, name_agents
from swarm.graphs.topologies import single
from swarm.optimizers.base import SettledOptimizer, Workload
from swarm.optimizers.budget import Budget
from swarm.optimizers.job import Job
from swarm.optimizers.role_step import Version, with_versions
from swarm.optimizers.scores import Scores
from swarm.optimizers.searchers.base import Array
from swarm.runtime.evaluate import Evaluator, select
from swarm.runtime.progress import Progress, default_progress
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
from swarm.runtime.system import System
from swarm.store import EvaluationRecord, Store
from swarm.tasks import Task


class BaselineSettings(BaseModel):
    """What can be said of every baseline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str = DEFAULT_ROLE
    """Every agent's."""


class Candidate(NamedTuple):
    """A graph that may become the system."""

    graph: AgentGraph
    """Its experts' names stand for their weights: others have another name within a job."""
    pool: Pool
    """Has the graph's experts."""
    versions: Mapping[str, Version] = {}
    """What those are that are mixtures of the searched pool's weights."""


Score = Callable[[Sequence[Candidate]], Awaitable[list[float]]]
"""Scores candidates together, whole, on the questions that are searched on."""


class Baseline(SettledOptimizer):
    """An optimizer without a state of its own: resumed, it begins anew, with all scores known.

    A member writes `find`, which must do the same whenever scores are the same, and may refuse
    pools in `check`. Settings are a subclass of `BaselineSettings`, named in `_type`.
    """

    _type = BaselineSettings
    _settings: BaselineSettings

    @abstractmethod
    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        """The candidate of choice: one of those that were scored."""

    def check(self, pool: Pool) -> None:
        """Refuses, before anything is recorded, a pool that can't be used.

        Raises:
            PoolError: nobody knows the role, or the experts do not fit.
        """
        find_role(self._settings.role, pool.roles)

    def workload(self, pool: Pool) -> Workload:
        """Every expert once a question, unless a member needs more."""
        return Workload(name_agents(list(pool), self._settings.role), iterations=1, graphs=1)

    def steps(self, pool: Pool) -> int:
        """How often `find` asks for scores, at most."""
        return 1

    def fit(
        self,
        task: Task,
        pool: Pool,
        *,
        split: str = "dev",
        limit: int | None = None,
        store: str | Store | None = None,
        runtime: Runtime | None = None,
        progress: Progress | None = None,
        settings: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
    ) -> System:
        """See `Optimizer.fit`."""
        runtime, progress = (
            runtime or default_runtime(pool.memory),
            progress or default_progress(),
        )
        select(task, split, limit)
        self.check(pool)
        runtime.residency.check(pool.values())

        async def run() -> System:
            with self._job(
                task,
                pool,
                split=split,
                limit=limit,
                store=store,
                progress=progress,
                settings=settings,
                budget=budget,
                runtime=runtime,
            ) as job:
                scheduler = runtime.scheduler(job.recorder)
                scores = Scores(Evaluator(task, split, pool, scheduler, limit=limit))
                trials = _Trials(scores, pool, job, progress)
                progress.start(self._title(task), self.steps(pool), 0)
                trials.choose(await self.find(task, pool, trials))
            assert trials.best is not None
            system = System(trials.best.graph, trials.best.pool, runtime=runtime)
            system.run = job.run
            return system

        return run_sync(run())


@dataclass
class _Trials:
    """What a job has scored, and the best of it."""

    scores: Scores
    pool: Pool
    """The one that is searched."""
    job: Job
    progress: Progress
    best: Candidate | None = None
    """The first of the highest score, until one is chosen."""
    step: int = 0
    versions: dict[str, Version] = field(default_factory=dict)
    """All mixtures that were scored."""

    def __post_init__(self) -> None:
        for graph, scores in self.job.scores():
            self.scores.remember(graph, scores)
        self.scores.failures = (self.job.state or {}).get("failures", 0)

    async def __call__(self, candidates: Sequence[Candidate]) -> list[float]:
        """See `Score`. What was not scored before is evaluated and kept."""
        graphs = [each.graph for each in candidates]
        experts = {name: each.pool[name] for each in candidates for name in each.graph.experts}
        pool = self.pool.of(experts.values())
        found, evaluations = await self.scores(graphs, pool)
        values = [score.low for score in found]
        self.step += 1
        for candidate, value in zip(candidates, values, strict=True):
            self.versions.update(candidate.versions)
            if self.best is None or value > self.scores.score(self.best.graph).low:
                self.best = candidate
        if evaluations:
            record = self.scores.evaluator.record
            self._commit([record(each, {"iteration": self.step}) for each in evaluations])
        self.job.summary = self.summary()
        mean = math.fsum(values) / len(values)
        self.progress.iteration(self.step, self.job.summary["score"], mean)
        return values

    def choose(self, candidate: Candidate) -> None:
        """Ends the job with `candidate`, whether another has scored more or not."""
        self.best = candidate
        if not self.job.done:
            self._commit([])
            self.job.summary = self.summary()

    def _commit(self, records: Sequence[EvaluationRecord]) -> None:
        versions = {name: each.as_json() for name, each in self.versions.items()}
        summary = self.summary()
        state = {
            "best": {"graph": summary["graph"], "score": summary["score"]},
            "failures": self.scores.failures,
            "versions": versions,
        }
        self.job.commit(records, state)

    def summary(self) -> dict[str, Any]:
        """How far it has come."""
        assert self.best is not None
        graph, pool, versions = self.best
        moved = {name: each.as_json() for name, each in versions.items()}
        made = {
            name: pool[name].model_dump(mode="json")
            for name in graph.experts
            if name not in {*self.pool, *versions} and pool[name].script is None
        }
        return {
            "score": self.scores.score(graph).low,
            "iterations": self.step,
            "questions": self.scores.size,
            "failures": self.scores.failures,
            "calls": self.scores.wanted,
            "graph": json.loads(graph.to_json()),
            **({"experts": moved} if moved else {}),
            **({"made": made} if made else {}),
        }


def mixed(
    pool: Pool, mixer: Mixer, of: str, coefficients: Array, name: str, role: str
) -> Candidate:
    """The pool's expert `of` alone, its weights now a mixture of the pool's.

    Args:
        coefficients: one an expert of the pool, shape (n,).
        name: what it is now called, or nearly so where the pool has such an expert.
    """
    while name in pool:
        name += "'"
    versions = {name: Version(of, coefficients)}
    return Candidate(single(name, role=role), with_versions(pool, versions, mixer), versions)
