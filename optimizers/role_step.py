"""Role-step of Heterogeneous Swarms (arXiv 2502.04510, section 3.1): one graph for the whole task.

Each particle is a continuous adjacency matrix over the pool's experts. It is decoded into a graph,
the graph is run on the dev questions, and its score moves the particle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from swarm.agents.expert import Pool
from swarm.errors import EngineError, InputError
from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import DEFAULT_ROLE, Agent, AgentGraph, name_agents
from swarm.optimizers.base import Optimizer
from swarm.optimizers.job import Job, job_key, open_job
from swarm.optimizers.pso import Array, ParticleSwarm, SwarmSettings
from swarm.runtime.compile import resolve
from swarm.runtime.evaluate import Evaluation, Evaluator
from swarm.runtime.progress import Progress, default_progress
from swarm.runtime.recording import wording
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
from swarm.runtime.system import System
from swarm.settings_file import settings_error
from swarm.store import Store
from swarm.tasks import Task

EXPLORE_TRIES = 8


class RoleStepSettings(SwarmSettings):
    """The knobs of `RoleStep`: those of the swarm, and how its positions become graphs."""

    particles: int = Field(10, ge=2)
    """N."""
    iterations: int = Field(20, ge=1)
    """At most so many."""
    seed: int = Field(0, ge=0)
    top_p: float = Field(0.0, ge=0, le=1)
    """p of G-Decode: how far down the candidates it may draw; 0 always takes the best."""
    threshold: float | None = None
    """τ: entries below it count as 0 ("sparsity")."""
    leave_out: float | None = None
    """Beyond the paper: agents whose best edge is below it stay out of the graph."""
    successors: int = Field(1, ge=1)
    """Beyond the paper: how many others may read an agent."""
    explore: float = Field(0.2, ge=0)
    """Beyond the paper: a particle whose graph was scored before is moved by normal noise of this
    size, half as much again after each of `EXPLORE_TRIES` tries, until its graph is new. A swarm
    that has contracted then searches around its best instead of asking the same again. 0: never,
    as published. (`benchmarks/role_step.py` compares.)"""
    memoise: bool = True
    """Whether a graph that was scored before is not scored again. Its score is the same."""
    roles: tuple[str, ...] = (DEFAULT_ROLE,)
    """One role for all, or one an expert, in the pool's order."""


class RoleStep(Optimizer):
    """Searches for the graph by particle swarm.

    ```
    best = swarm.RoleStep(particles=10, iterations=10, seed=0).fit(task, pool)
    ```
    """

    def __init__(self, **settings: Any) -> None:
        """`settings` are the fields of `RoleStepSettings`.

        Raises:
            ConfigError: a setting that is unknown or out of range.
        """
        try:
            self._settings = RoleStepSettings.model_validate(settings)
        except ValidationError as error:
            raise settings_error("RoleStep", error, RoleStepSettings) from None

    def __repr__(self) -> str:
        changed = self._settings.model_dump(exclude_unset=True)
        return f"RoleStep({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    def settings(self) -> dict[str, Any]:
        return {"optimizer": "role_step", **self._settings.model_dump(mode="json")}

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
    ) -> System:
        """See `Optimizer.fit`. Every expert of the pool plays one agent."""
        runtime, progress = runtime or default_runtime(), progress or default_progress()
        if len(pool) < 2:
            raise InputError(f"pool `{pool.name}` has 1 expert: there is no graph to search for")
        agents = name_agents(list(pool), self._roles(pool))
        resolve(AgentGraph(agents=agents, edges=_path(agents)), pool)
        description = {
            **self.settings(),
            "task": task.name,
            "pool": pool.name,
            **wording(pool, pool),
            "split": split,
            "limit": limit,
        }
        title = f"role-step on {task.name}"

        async def search() -> System:
            with open_job(
                store,
                key=job_key(description, task, pool),
                title=title,
                settings={**description, **(settings or {})},
                progress=progress,
            ) as job:
                scheduler = runtime.scheduler(job.recorder)
                evaluator = Evaluator(task, split, pool, scheduler, limit=limit)
                work = _Search(self, agents, evaluator)
                work.restore(job)
                swarm = work.swarm
                progress.start(title, swarm.iterations, swarm.iteration)
                while not (job.done or swarm.done):
                    mean = await work.step(job)
                    progress.iteration(swarm.iteration, work.best_score, mean)
                assert work.best is not None
                job.summary.update(
                    score=work.best_score,
                    iterations=swarm.iteration,
                    questions=len(evaluator.examples),
                    failures=work.failures,
                    asked=job.recorder.asked,
                    graph=json.loads(work.best.to_json()),
                )
                system = System(work.best, pool, runtime=runtime)
                system.run = job.run
                return system

        task.split(split)
        return run_sync(search())

    @property
    def memoise(self) -> bool:
        return self._settings.memoise

    def _roles(self, pool: Pool) -> str | Sequence[str]:
        roles = self._settings.roles
        if len(roles) == 1:
            return roles[0]
        if len(roles) != len(pool):
            raise InputError(
                f"`roles` has {len(roles)} entries for {len(pool)} experts: give one, or one each"
            )
        return roles

    def start(self, n: int) -> ParticleSwarm:
        """The swarm at its beginning: entries uniform in [0, 1), nothing on the diagonal."""
        how = self._settings
        rng = np.random.default_rng(how.seed)
        adjacency = rng.random((how.particles, n, n)) * (1 - np.eye(n))
        only_swarm = how.model_dump(include=set(SwarmSettings.model_fields))
        return ParticleSwarm(adjacency, rng, SwarmSettings(**only_swarm), iterations=how.iterations)

    def propose(
        self,
        adjacency: Array,
        agents: Sequence[Agent],
        rng: np.random.Generator,
        scored: Collection[AgentGraph],
    ) -> tuple[list[AgentGraph], Array]:
        """The graphs to score next and the positions they come from (see `explore`)."""
        graphs = self.decode(adjacency, agents, rng)
        if self._settings.explore == 0:
            return graphs, adjacency
        adjacency = adjacency.copy()
        off_diagonal = 1 - np.eye(len(agents))
        seen = set(scored)
        for i, centre in enumerate(adjacency.copy()):
            size = self._settings.explore
            for _ in range(EXPLORE_TRIES):
                if graphs[i] not in seen:
                    break
                moved = centre + size * rng.standard_normal(centre.shape) * off_diagonal
                [graph] = self.decode(moved[None], agents, rng)
                if graph not in seen:
                    graphs[i], adjacency[i] = graph, moved
                size *= 1.5
            seen.add(graphs[i])
        return graphs, adjacency

    def decode(
        self, adjacency: Array, agents: Sequence[Agent], rng: np.random.Generator
    ) -> list[AgentGraph]:
        """The graphs of matrices (N, n, n); draws from `rng`, the swarm's own."""
        how = self._settings
        return decode_swarm(
            adjacency,
            agents,
            p=how.top_p,
            rng=rng,
            threshold=how.threshold,
            leave_out=how.leave_out,
            successors=how.successors,
        )


def _path(agents: Sequence[Agent]) -> tuple[tuple[str, str], ...]:
    return tuple(pairwise(agent.name for agent in agents))


class _Search:
    """One search: its swarm, and what it has scored."""

    def __init__(self, optimizer: RoleStep, agents: Sequence[Agent], evaluator: Evaluator) -> None:
        self.swarm = optimizer.start(len(agents))
        self.best: AgentGraph | None = None
        self.best_score = -1.0
        self.failures = 0
        """Questions whose trace failed, over all graphs."""
        self._optimizer = optimizer
        self._agents = agents
        self._evaluator = evaluator
        self._scores: dict[AgentGraph, float] = {}
        self._history: list[dict[str, Any]] = []

    async def step(self, job: Job) -> float:
        """One iteration; returns its mean score."""
        swarm = self.swarm
        graphs, positions = self._optimizer.propose(
            swarm.ask(), self._agents, swarm.rng, self._scores
        )
        new = graphs
        if self._optimizer.memoise:
            new = [graph for graph in dict.fromkeys(graphs) if graph not in self._scores]
        evaluations = await self._evaluator(new)
        _refuse_if_all_failed(evaluations)
        self.failures += sum(len(e.errors) for e in evaluations)
        self._scores.update((e.graph, e.score) for e in evaluations)
        scores = [self._scores[graph] for graph in graphs]
        for graph, score in zip(graphs, scores, strict=True):
            if score > self.best_score:
                self.best, self.best_score = graph, score
        swarm.tell(scores, at=positions)
        self._history.append({"scores": scores, "asked": job.recorder.asked})
        records = [
            self._evaluator.record(
                evaluation,
                {"iteration": swarm.iteration, "particle": graphs.index(evaluation.graph)},
            )
            for evaluation in evaluations
        ]
        job.commit(records, self._state())
        return float(np.mean(scores))

    def _state(self) -> dict[str, Any]:
        assert self.best is not None
        return {
            "swarm": self.swarm.state(),
            "best": self.best.to_json(),
            "best_score": self.best_score,
            "failures": self.failures,
            "history": self._history,
        }

    def restore(self, job: Job) -> None:
        """Takes up the job where it was left: its state, and all it has scored."""
        if job.state is None:
            return
        self.swarm = ParticleSwarm.restore(job.state["swarm"])
        self.best = AgentGraph.from_json(job.state["best"])
        self.best_score = job.state["best_score"]
        self.failures = job.state["failures"]
        self._history = job.state["history"]
        self._scores = {view.graph: view.score for view in job.evaluations()}


def _refuse_if_all_failed(evaluations: Sequence[Evaluation]) -> None:
    """One question may fail; if all of all graphs do, searching on would only cost."""
    if evaluations and all(len(e.errors) == len(e.scores) for e in evaluations):
        first = next(iter(evaluations[0].errors.values()))
        raise EngineError(f"every question of every graph failed; the first error: {first}")


def random_graphs(
    pool: Pool, count: int, *, seed: int = 0, top_p: float = 0.0, role: str = DEFAULT_ROLE
) -> list[AgentGraph]:
    """Graphs as a role-step starts with: decoded from uniform random matrices. A control."""
    rng = np.random.default_rng(seed)
    n = len(pool)
    adjacency = rng.random((count, n, n)) * (1 - np.eye(n))
    return decode_swarm(adjacency, name_agents(list(pool), role), p=top_p, rng=rng)
