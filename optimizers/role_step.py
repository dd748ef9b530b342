"""Role-step of Heterogeneous Swarms (arXiv 2502.04510, section 3.1): one graph for the whole task.

Each particle is a continuous adjacency matrix over the pool's experts. It is decoded into a graph,
the graph is run on the dev questions, and its score moves the particle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Response
from swarm.errors import EngineError, InputError
from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import DEFAULT_ROLE, Agent, AgentGraph, name_agents
from swarm.optimizers.base import Optimizer
from swarm.optimizers.pso import Array, ParticleSwarm, SwarmSettings
from swarm.runtime.cache import MemoryCache, Recorder
from swarm.runtime.compile import resolve
from swarm.runtime.evaluate import Evaluation, Evaluator
from swarm.runtime.progress import Progress, default_progress
from swarm.runtime.recording import StoreRecorder, finishing, wording
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
from swarm.runtime.system import System
from swarm.settings_file import settings_error
from swarm.store import BatchRecord, Store
from swarm.store.records import AnswerRecord
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
        runtime = runtime or default_runtime()
        if len(pool) < 2:
            raise InputError(f"pool `{pool.name}` has 1 expert: there is no graph to search for")
        agents = name_agents(list(pool), self._roles(pool))
        resolve(AgentGraph(agents=agents, edges=_path(agents)), pool)
        task.split(split)
        search = _Search(self, task, pool, agents, split, limit)
        graph, run = run_sync(
            search.run(store, runtime, progress or default_progress(), settings or {})
        )
        system = System(graph, pool, runtime=runtime)
        system.run = run
        return system

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
    """One job of a `RoleStep`: its swarm, what it has scored, and where it is recorded."""

    def __init__(
        self,
        job: RoleStep,
        task: Task,
        pool: Pool,
        agents: Sequence[Agent],
        split: str,
        limit: int | None,
    ) -> None:
        self._job = job
        self._task = task
        self._pool = pool
        self._agents = agents
        self._split = split
        self._limit = limit
        self._swarm = job.start(len(agents))
        self._best: AgentGraph | None = None
        self._best_score = -1.0
        self._scores: dict[AgentGraph, float] = {}
        self._history: list[dict[str, Any]] = []

    @property
    def description(self) -> dict[str, Any]:
        return {
            **self._job.settings(),
            "task": self._task.name,
            "pool": self._pool.name,
            **wording(self._pool, self._pool),
            "split": self._split,
            "limit": self._limit,
        }

    @property
    def key(self) -> bytes:
        """What makes a job the same job: settings, questions, and experts with their weights."""
        digest = hashlib.blake2b(digest_size=32)
        digest.update(json.dumps(self.description, sort_keys=True).encode())
        digest.update(self._task.fingerprint + self._pool.fingerprint)
        return digest.digest()

    async def run(
        self,
        store: str | Store | None,
        runtime: Runtime,
        progress: Progress,
        settings: Mapping[str, Any],
    ) -> tuple[AgentGraph, int | None]:
        """The best graph, and the id of the job where there is a store."""
        if store is None:
            with progress:
                await self._search(_Counted(MemoryCache(), progress), runtime, progress, None, None)
            assert self._best is not None
            return self._best, None
        with ExitStack() as stack:
            if isinstance(store, str):
                store = stack.enter_context(Store.open(store))
            with store.transaction():  # so that of two who start it at once one finds the other's
                found = store.find_job(self.key)
                run = (
                    found.id
                    if found is not None
                    else store.start_run(
                        "job",
                        f"role-step on {self._task.name}",
                        {**self.description, **settings},
                        key=self.key,
                    )
                )
            stack.enter_context(store.lock_run(run))
            self._load(store, run)
            stack.enter_context(progress)
            if found is None or found.status != "done":
                if found is not None:
                    store.resume_run(run)
                asked = sum(view.batch.requests for view in store.batches(run))
                recorder = _Counted(StoreRecorder(store, run), progress, asked)
                with finishing(store, run) as summary:
                    await self._search(recorder, runtime, progress, store, run)
                    assert self._best is not None
                    summary.update(
                        score=self._best_score,
                        iterations=self._swarm.iteration,
                        questions=len(self._task.split(self._split)[: self._limit]),
                        asked=recorder.asked,
                        graph=json.loads(self._best.to_json()),
                    )
        assert self._best is not None
        return self._best, run

    async def _search(
        self,
        recorder: _Counted,
        runtime: Runtime,
        progress: Progress,
        store: Store | None,
        run: int | None,
    ) -> None:
        scheduler = runtime.scheduler(recorder)
        evaluator = Evaluator(self._task, self._split, self._pool, scheduler, limit=self._limit)
        swarm = self._swarm
        progress.start(f"role-step on {self._task.name}", swarm.iterations, swarm.iteration)
        while not swarm.done:
            graphs, positions = self._job.propose(
                swarm.ask(), self._agents, swarm.rng, self._scores
            )
            new = list(dict.fromkeys(graph for graph in graphs if graph not in self._scores))
            if not self._job._settings.memoise:
                new = list(graphs)
            evaluations = await evaluator(new)
            _refuse_if_all_failed(evaluations)
            self._scores.update((e.graph, e.score) for e in evaluations)
            scores = [self._scores[graph] for graph in graphs]
            for graph, score in zip(graphs, scores, strict=True):
                if score > self._best_score:
                    self._best, self._best_score = graph, score
            swarm.tell(scores, at=positions)
            self._history.append({"scores": scores, "asked": recorder.asked})
            if store is not None and run is not None:
                with store.transaction():
                    for evaluation in evaluations:
                        where = {
                            "iteration": swarm.iteration,
                            "particle": graphs.index(evaluation.graph),
                        }
                        store.add_evaluation(run, evaluator.record(evaluation, where))
                    store.save_state(run, self._state())
            progress.iteration(swarm.iteration, self._best_score, float(np.mean(scores)))

    def _state(self) -> dict[str, Any]:
        assert self._best is not None
        return {
            "swarm": self._swarm.state(),
            "best": self._best.to_json(),
            "best_score": self._best_score,
            "history": self._history,
        }

    def _load(self, store: Store, run: int) -> None:
        """Takes up the job where it was left: its state, and all it has scored."""
        state = store.state(run)
        if state is None:
            return
        self._swarm = ParticleSwarm.restore(state["swarm"])
        self._best = AgentGraph.from_json(state["best"])
        self._best_score = state["best_score"]
        self._history = state["history"]
        self._scores = {view.graph: view.score for view in store.evaluations(run)}


class _Counted(Recorder):
    """Another recorder, with a count of the calls that were made."""

    def __init__(self, inner: Recorder, progress: Progress, asked: int = 0) -> None:
        self._inner = inner
        self._progress = progress
        self.asked = asked

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        return self._inner.known(keys)

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self._inner.record(batch, experts, answers)
        self.asked += batch.requests
        self._progress.calls(self.asked)


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
