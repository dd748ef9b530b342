"""What optimizers of policies share: every expert is asked every question, and a member learns.

To add one, write a `Policy` and a `PolicyOptimizer` that fits it, and name them in `POLICIES` and
`OPTIMIZERS`; `swarm.optimizers.wording` is the simplest.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from swarm.agents.expert import Pool
from swarm.agents.role import find_role
from swarm.errors import EngineError, InputError
from swarm.graphs.graph import DEFAULT_ROLE, AgentGraph, name_agents
from swarm.graphs.topologies import single
from swarm.optimizers.base import SettledOptimizer, Workload
from swarm.optimizers.budget import Budget
from swarm.optimizers.job import Job
from swarm.optimizers.outcomes import Outcomes
from swarm.runtime.evaluate import Evaluation, Evaluator, select
from swarm.runtime.policy import Policy, described_policy, policy_from_document
from swarm.runtime.progress import Progress, default_progress
from swarm.runtime.recording import current_store
from swarm.runtime.routing import Asker, route
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
from swarm.runtime.system import System
from swarm.store import EvaluationRecord, Store
from swarm.tasks import Example, Task


class PolicySettings(BaseModel):
    """What can be said of every optimizer of policies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str = DEFAULT_ROLE
    """The role in which experts are asked alone, and of agents that have no other."""
    measure: bool = True
    """Whether the policy is at last run on the questions that it was fitted on, for the job's
    score. Calls that are known by then are not made again."""


@dataclass
class Bench:
    """What a member that asks while it learns may use; all that is asked is the job's."""

    task: Task
    pool: Pool
    examples: Sequence[Example]
    """n: the questions that are learned from, in the order of the outcomes."""
    ask: Asker
    """Asks experts in a member's own words; see `swarm.runtime.policy.Ask`."""
    step: Callable[[float], None]
    """Shows that one of the steps that `steps_of_learning` counts is over, and its mean score."""
    tell: Callable[[Sequence[Mapping[str, Any]]], None]
    """Takes how it was learned, to be kept and shown with the job: rows of figures, all with the
    same names."""
    _evaluator: Evaluator
    _keeper: _Keeper

    async def evaluate(
        self, work: Sequence[tuple[AgentGraph, Sequence[int]]], *, record: bool = True
    ) -> list[Evaluation]:
        """Scores each graph on questions of its own, all together.

        Args:
            work: graphs, each with the numbers of its questions among `examples`.
            record: keeps the traces, too; for a training that runs thousands of graphs, False
                keeps calls and batches only.
        """
        found = await self._evaluator.each(work)
        if record:
            self._keeper.keep(found, {"learning": True, "partial": True})
        return found


class PolicyOptimizer(SettledOptimizer):
    """Fits a policy to what every expert makes of every question.

    A member writes `learn`, or `alearn` if it has to ask experts itself. Either must do the same
    whenever it is given the same: what is drawn is drawn by a seed among the settings. Resumed, a
    job begins anew, with all answers known. Settings are a subclass of `PolicySettings`, named in
    `_type`.
    """

    _type = PolicySettings
    _settings: PolicySettings

    @abstractmethod
    def learn(self, outcomes: Outcomes) -> Policy:
        """The policy that these outcomes teach. Its graphs have experts of `outcomes` only.

        Raises:
            InputError: the outcomes can't be learned from, or only `alearn` can.
        """

    async def alearn(self, outcomes: Outcomes, bench: Bench) -> Policy:
        """The same, for those that ask experts; all others never use `bench`."""
        return self.learn(outcomes)

    def steps_of_learning(self) -> int:
        """How often `alearn` calls `Bench.step`."""
        return 0

    def check(self, task: Task, pool: Pool, split: str) -> None:
        """Refuses, before anything is recorded, what can't be used.

        Raises:
            InputError: nobody knows the role, the experts do not fit, or a package is missing.
        """
        find_role(self._settings.role, pool.roles)

    def workload(self, pool: Pool) -> Workload:
        """Every expert once a question, unless a member needs more."""
        return Workload(name_agents(list(pool), self._settings.role), iterations=1, graphs=1)

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
        """See `Optimizer.fit`. Stopped before it has learned, it gives the best single expert."""
        runtime = runtime or default_runtime(pool.memory)
        progress = progress or default_progress()
        select(task, split, limit)
        self.check(task, pool, split)

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
                if not job.done:
                    token = current_store.set(job.store)
                    try:
                        evaluator = Evaluator(
                            task, split, pool, runtime.scheduler(job.recorder), limit=limit
                        )
                        await self._fit(job, evaluator, progress)
                    finally:
                        current_store.reset(token)
            assert job.state is not None
            system = System(_found(job.state), pool, runtime=runtime)
            system.run = job.run
            return system

        return run_sync(run())

    async def _fit(self, job: Job, evaluator: Evaluator, progress: Progress) -> None:
        how, pool, examples = self._settings, evaluator.pool, evaluator.examples
        keeper = _Keeper(job, evaluator)
        last = 1 + self.steps_of_learning() + how.measure
        progress.start(self._title(evaluator.task), last, 0)
        rows = range(len(examples))
        alone = await evaluator.each([(single(name, role=how.role), rows) for name in pool])
        if all(len(each.errors) == len(rows) for each in alone):
            first = next(iter(alone[0].errors.values()))
            raise EngineError(f"every question of every expert failed; the first error: {first}")
        outcomes = Outcomes.of(examples, alone)
        best = alone[outcomes.best]
        keeper.summary = {
            "score": best.score,
            "questions": len(rows),
            "graph": json.loads(best.graph.to_json()),
        }
        keeper.keep(alone, {"iteration": 1})
        progress.iteration(1, best.score, float(np.mean(outcomes.means)))
        steps = count(2)

        bench = Bench(
            evaluator.task,
            pool,
            examples,
            Asker(evaluator.scheduler, pool, len(rows)),
            lambda mean: progress.iteration(next(steps), best.score, mean),
            lambda rows: keeper.summary.update(learning=list(rows)),
            evaluator,
            keeper,
        )
        policy = (await self.alearn(outcomes, bench)).fits(pool)
        keeper.policy = policy.document()
        del keeper.summary["graph"], keeper.summary["score"]
        keeper.summary["policy"] = described_policy(policy)
        keeper.summary["best_single"] = best.score
        keeper.keep([], {})
        if not how.measure:
            return
        evaluator.pool = policy.extend(pool)
        measured = await route(evaluator, policy)
        keeper.summary["score"] = measured.score
        keeper.summary["graphs"] = len(measured.parts)
        keeper.keep(measured.parts, {"policy": policy.name, "partial": True})
        progress.iteration(last, max(best.score, measured.score), measured.score)


class _Keeper:
    """Commits what a job has come to, each evaluation once, however often it is resumed."""

    def __init__(self, job: Job, evaluator: Evaluator) -> None:
        self.summary: dict[str, Any] = {}
        self.policy: dict[str, Any] | None = (job.state or {}).get("policy")
        self._job = job
        self._evaluator = evaluator
        self._failures = 0
        self._kept: set[tuple[AgentGraph, tuple[int, ...]]] = {
            (graph, tuple(sorted(scores))) for graph, scores in job.scores()
        }

    def keep(self, evaluations: Sequence[Evaluation], info: Mapping[str, Any]) -> None:
        records: list[EvaluationRecord] = []
        for each in evaluations:
            self._failures += len(each.errors)
            name = (each.graph, tuple(sorted(each.rows)))
            if name not in self._kept:
                self._kept.add(name)
                records.append(self._evaluator.record(each, info))
        self.summary["failures"] = self._failures
        self._job.summary = dict(self.summary)
        best = (self._job.state or {}).get("best")
        if "graph" in self.summary:
            best = {"graph": self.summary["graph"], "score": self.summary["score"]}
        self._job.commit(records, {"best": best, "policy": self.policy})


def _found(state: Mapping[str, Any]) -> AgentGraph | Policy:
    """The policy that a job has fitted, or the best single expert where it was stopped before."""
    if state.get("policy") is not None:
        return policy_from_document(state["policy"])
    return AgentGraph.model_validate(state["best"]["graph"])


def fitted_policy(store: Store, run: int) -> Policy:
    """The policy that a recorded job has fitted.

    Raises:
        InputError: it has not, or not yet.
    """
    document = (store.state(run) or {}).get("policy")
    if document is None:
        raise InputError(f"run {run} has fitted no policy: see `swarm show {run}`")
    return policy_from_document(document)
