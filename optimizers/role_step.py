"""Role-step of Heterogeneous Swarms (arXiv 2502.04510, section 3.1): one graph for the whole task.

Each particle is a continuous adjacency matrix over the pool's experts. It is decoded into a graph,
the graph is run on the dev questions, and its score moves the particle.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.errors import InputError, did_you_mean
from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import DEFAULT_ROLE, Agent, AgentGraph, name_agents
from swarm.optimizers.base import SettledOptimizer, Workload
from swarm.optimizers.budget import Budget
from swarm.optimizers.job import Job
from swarm.optimizers.pso import SwarmSettings, pack
from swarm.optimizers.scores import Decided, Score, Scores
from swarm.optimizers.searchers import SEARCHERS, find_searcher
from swarm.optimizers.searchers.base import Array, Searcher
from swarm.runtime.compile import resolve
from swarm.runtime.evaluate import Evaluation, Evaluator
from swarm.runtime.progress import Progress, default_progress
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
from swarm.runtime.system import System
from swarm.store import EvaluationRecord, Store
from swarm.tasks import Task

EXPLORE_TRIES = 8


class RoleStepSettings(SwarmSettings):
    """The knobs of `RoleStep`: those of the swarm, how its positions become graphs, and how much of
    an evaluation is made."""

    particles: int = Field(10, ge=2)
    """N."""
    iterations: int = Field(20, ge=1)
    """At most so many."""
    seed: int = Field(0, ge=0)
    search: str = "pso"
    """What moves the particles: `pso` (the paper), or for comparison `random`, `cmaes`,
    `reinforce`, which take no more of the swarm's knobs than `patience`."""
    top_p: float = Field(0.0, ge=0, le=1)
    """p of G-Decode: how far down the candidates it may draw; 0 always takes the best."""
    threshold: float | None = None
    """τ: entries below it count as 0 ("sparsity")."""
    l1: float = Field(0.0, ge=0)
    """The other kind of sparsity: so much times the mean |a_ij| is taken off a particle's score
    when it is compared, not when it is reported."""
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
    bounds: bool = True
    """Whether an evaluation stops once its outcome is decided. The search goes the same way."""
    racing: float | None = Field(None, ge=0.5, lt=1)
    """Lossy: an evaluation also stops once its outcome is decided at this confidence, such as
    0.95, by Serfling's inequality. Clearly worse particles then cost little, and the search may go
    another way."""
    reference: bool = False
    """Runs the algorithm as published: every evaluation whole, nothing remembered or asked for two
    at once, one graph after the other. What is beyond the paper is off unless it is set."""
    roles: tuple[str, ...] = (DEFAULT_ROLE,)
    """One role for all, or one an expert, in the pool's order."""

    _beyond: ClassVar[dict[str, Any]] = {"explore": 0.0, "memoise": False, "bounds": False}
    """How `reference` sets what it is silent about."""

    @field_validator("search")
    @classmethod
    def _check_search(cls, name: str) -> str:
        if name not in SEARCHERS:
            known = ", ".join(f"`{each}`" for each in SEARCHERS)
            raise ValueError(f"must be one of {known}{did_you_mean(name, SEARCHERS)}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("reference") is True:
            return {**cls._beyond, **given}
        return given


class RoleStep(SettledOptimizer):
    """Searches for the graph by particle swarm.

    ```
    best = swarm.RoleStep(particles=10, iterations=10, seed=0).fit(task, pool)
    ```
    """

    name: ClassVar[str] = "role_step"
    _type = RoleStepSettings
    """Its fields are what `RoleStep(…)` takes."""
    _settings: RoleStepSettings

    def workload(self, pool: Pool) -> Workload:
        how = self._settings
        return Workload(
            agents=name_agents(list(pool), _roles(how.roles, pool)),
            iterations=how.iterations,
            graphs=how.particles,
            successors=how.successors,
            seed=how.seed,
        )

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
        """See `Optimizer.fit`. Every expert of the pool plays one agent."""
        runtime, progress = (
            runtime or default_runtime(pool.memory),
            progress or default_progress(),
        )
        if len(pool) < 2:
            raise InputError(f"pool `{pool.name}` has 1 expert: there is no graph to search for")
        agents = name_agents(list(pool), _roles(self._settings.roles, pool))
        resolve(AgentGraph(agents=agents, edges=tuple(pairwise(a.name for a in agents))), pool)
        runtime.residency.check(pool.values())
        new = functools.partial(self._search, self._settings, agents, self._cast(pool))

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
                scheduler = runtime.scheduler(job.recorder, spare=not self._settings.reference)
                search = new(Evaluator(task, split, pool, scheduler, limit=limit))
                search.restore(job)
                job.summary = search.summary()
                progress.start(self._title(task), self._settings.iterations, search.iteration)
                while not (job.done or search.done):
                    mean = await search.step(job)
                    job.summary = search.summary()
                    assert search.best is not None
                    progress.iteration(search.iteration, search.best.score, mean)
            assert job.state is not None
            system = Best.from_json(job.state["best"]).system(pool, runtime)
            system.run = job.run
            return system

        task.split(split)
        return run_sync(run())

    def _cast(self, pool: Pool) -> Cast:
        return Cast(pool)

    @property
    def _search(self) -> type[RoleSearch]:
        return RoleSearch


def _roles(roles: tuple[str, ...], pool: Pool) -> str | Sequence[str]:
    if len(roles) == 1:
        return roles[0]
    if len(roles) != len(pool):
        raise InputError(
            f"`roles` has {len(roles)} entries for {len(pool)} experts: give one, or one each"
        )
    return roles


class Cast:
    """The experts as they are now: those of a pool, until a weight-step moves their weights.

    An expert whose weights were moved is another expert: ``math@3`` is ``math`` as it was after
    the third iteration.
    """

    def __init__(self, pool: Pool) -> None:
        self._given = pool
        self.names = tuple(pool)
        """What the experts are called now, in the pool's order."""
        self.versions: dict[str, Version] = {
            name: Version(name, row) for name, row in zip(pool, np.eye(len(pool)), strict=True)
        }
        """Every expert there ever was, by its name."""

    def pool_of(self, names: Iterable[str]) -> Pool:
        """A pool with the experts of these names."""
        return self._given

    @property
    def pool(self) -> Pool:
        """The experts as they are now."""
        return self.pool_of(self.names)

    def index(self, name: str) -> int:
        """Which of the pool's experts `name` was."""
        return list(self.versions).index(self.versions[name].of)


@dataclass(frozen=True)
class Version:
    """An expert with other weights."""

    of: str
    """The pool's expert that it was."""
    coefficients: Array
    """Its weights in terms of the pool's experts', shape (n,)."""

    def as_json(self) -> dict[str, Any]:
        return {"of": self.of, "coefficients": self.coefficients.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["of"], np.array(data["coefficients"], dtype=np.float64))


def with_versions(pool: Pool, versions: Mapping[str, Version], mixer: Mixer | None = None) -> Pool:
    """A pool of these experts, whose weights are mixtures of those of `pool`.

    Raises:
        PoolError: the pool's weights can't be mixed.
    """
    positions = {name: k for k, name in enumerate(pool)}
    experts = []
    for name, version in versions.items():
        if name in pool:
            experts.append(pool[name])
        else:
            mixer = mixer or Mixer(pool)
            experts.append(mixer.expert(positions[version.of], version.coefficients, name))
    return pool.of(experts)


@dataclass(frozen=True)
class Best:
    """The best that a search has found: a graph, and who its experts are."""

    graph: AgentGraph
    score: float
    iteration: int
    step: str
    """``role`` or ``weight``."""
    experts: Mapping[str, Version]
    """By the names in the graph."""

    def as_json(self) -> dict[str, Any]:
        return {
            "graph": self.graph.to_json(),
            "score": self.score,
            "iteration": self.iteration,
            "step": self.step,
            "experts": {name: version.as_json() for name, version in self.experts.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        experts = {name: Version.from_json(each) for name, each in data["experts"].items()}
        graph = AgentGraph.from_json(data["graph"])
        return cls(graph, data["score"], data["iteration"], data["step"], experts)

    def system(self, pool: Pool, runtime: Runtime | None = None) -> System:
        """It, ready to run; `pool` is the one that was searched."""
        if all(name in pool for name in self.experts):
            return System(self.graph, pool, runtime=runtime)
        return System(self.graph, with_versions(pool, self.experts), runtime=runtime)


@dataclass
class RoleSearch:
    """One search in progress: what it has scored, and where it stands. One step an iteration."""

    settings: RoleStepSettings
    agents: Sequence[Agent]
    cast: Cast
    evaluator: Evaluator
    best: Best | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        how = self.settings
        self.searcher = _start(how, len(self.agents))
        self.scores = Scores(
            self.evaluator,
            memoise=how.memoise,
            bounds=how.bounds,
            racing=how.racing,
            one_by_one=how.reference,
        )

    @property
    def iteration(self) -> int:
        return len(self.history)

    @property
    def done(self) -> bool:
        return self.searcher.done

    @property
    def needs_top(self) -> bool:
        """Whether it matters which graph of an iteration is the best."""
        return False

    async def step(self, job: Job) -> float:
        """One iteration, committed; returns the mean of the scores that are whole."""
        role, records = await self.role_step()
        self.commit(job, {"role": role, "weight": None}, records)
        return mean_score(role)

    async def role_step(self) -> tuple[dict[str, Any], list[EvaluationRecord]]:
        """Every particle scored and moved; what the history keeps of it, and the evaluations."""
        how, searcher, names = self.settings, self.searcher, self.role_experts()
        agents = [
            agent.model_copy(update={"expert": name})
            for agent, name in zip(self.agents, names, strict=True)
        ]
        graphs, positions = propose(how, searcher.ask(), agents, searcher.rng, self.scores)
        penalties = how.l1 * np.abs(positions).reshape(len(positions), -1).mean(axis=1)
        off = penalties.tolist()

        def decided(i: int, floor: float, top: float, low: float, high: float) -> bool:
            if self.needs_top and high >= top:
                return False
            return searcher.decided(i, low - off[i], high - off[i], floor)

        def rules() -> list[Decided]:
            known = [self.scores.score(graph) for graph in graphs]
            top = max(score.low for score in known)
            highs = [score.high - less for score, less in zip(known, off, strict=True)]
            floors = [
                min(
                    (high for high, other in zip(highs, graphs, strict=True) if other != graph),
                    default=math.inf,
                )
                for graph in graphs
            ]
            return [functools.partial(decided, i, floor, top) for i, floor in enumerate(floors)]

        scores, evaluations = await self.scores(graphs, self.cast.pool_of(names), rules)
        told = [_told(score, how.racing is not None) for score in scores]
        searcher.tell((np.array(told) - penalties).tolist(), at=positions)
        for graph, score in zip(graphs, scores, strict=True):
            if score.whole:
                self._consider(graph, score.low, "role")
        top = int(np.argmax(told))
        entry = {
            "scores": told,
            "whole": [score.whole for score in scores],
            "positions": pack(positions),
            "graph": graphs[top].to_json(),
            "score": told[top],
        }
        where = {graph: {"particle": i} for i, graph in reversed(list(enumerate(graphs)))}
        return entry, self._records(evaluations, where)

    def role_experts(self) -> list[str]:
        """Who plays the agents in a role-step: names of experts, in the agents' order."""
        return list(self.cast.names)

    def _consider(self, graph: AgentGraph, score: float, step: str) -> None:
        if self.best is None or score > self.best.score:
            experts = {name: self.cast.versions[name] for name in graph.experts}
            self.best = Best(graph, score, self.iteration + 1, step, experts)

    def _records(
        self, evaluations: Sequence[Evaluation], where: Mapping[AgentGraph, Mapping[str, Any]]
    ) -> list[EvaluationRecord]:
        size = self.scores.size
        return [
            self.evaluator.record(
                evaluation,
                {
                    "iteration": self.iteration + 1,
                    **where[evaluation.graph],
                    **({} if len(evaluation.rows) == size else {"partial": True}),
                },
            )
            for evaluation in evaluations
        ]

    def commit(
        self, job: Job, entry: Mapping[str, Any], records: Sequence[EvaluationRecord]
    ) -> None:
        """Ends the iteration: what it has found is kept, together or not at all."""
        assert self.best is not None
        wanted, spared = self.scores.wanted, self.scores.spared
        scheduler = self.evaluator.scheduler
        # What an interrupted iteration had asked was asked in it, though it is now known.
        asked = job.recorder.asked
        known = wanted - spared.memo - spared.bounds - scheduler.shared - asked
        self.history.append(
            {
                **entry,
                "best_score": self.best.score,
                "asked": asked,
                "calls": wanted,
                "spared": {**asdict(spared), "known": known, "shared": scheduler.shared},
            }
        )
        job.commit(records, self.state())

    def state(self) -> dict[str, Any]:
        """All of it as JSON values."""
        assert self.best is not None
        return {
            "search": self.searcher.state(),
            "weights": None,
            "jfk": None,
            "failures": self.scores.failures,
            "best": self.best.as_json(),
            "history": self.history,
        }

    def restore(self, job: Job) -> None:
        """Takes up the job where it was left: its state, and all it has scored."""
        if (state := job.state) is None:
            return
        self.searcher = type(self.searcher).restore(state["search"])
        self.best = Best.from_json(state["best"])
        self.history = state["history"]
        self.scores.failures = state["failures"]
        for graph, scores in job.scores():
            self.scores.remember(graph, scores)
        last = self.history[-1]
        self.scores.wanted = last["calls"]
        self.scores.spared.memo = last["spared"]["memo"]
        self.scores.spared.bounds = last["spared"]["bounds"]
        self.evaluator.scheduler.shared = last["spared"]["shared"]

    def summary(self) -> dict[str, Any]:
        """How far it has come; nothing before the first step."""
        if self.best is None:
            return {}
        moved = {n: v.as_json() for n, v in self.best.experts.items() if n != v.of}
        return {
            "score": self.best.score,
            "iterations": self.iteration,
            "questions": self.scores.size,
            "failures": self.scores.failures,
            "calls": self.scores.wanted,
            "spared": self.history[-1]["spared"],
            "graph": json.loads(self.best.graph.to_json()),
            **({"experts": moved} if moved else {}),
        }


def mean_score(entry: Mapping[str, Any]) -> float:
    """The mean of a history entry's scores: of those that are whole, if any are."""
    whole = [s for s, known in zip(entry["scores"], entry["whole"], strict=True) if known]
    return float(np.mean(whole or entry["scores"]))


def _told(score: Score, racing: bool) -> float:
    """What the searcher is told: where it makes no difference, what is certain."""
    return score.low if score.whole or not racing else score.estimate


def _start(how: RoleStepSettings, n: int) -> Searcher:
    """The search at its beginning: entries uniform in [0, 1), nothing on the diagonal."""
    rng = np.random.default_rng(how.seed)
    adjacency = rng.random((how.particles, n, n)) * (1 - np.eye(n))
    return find_searcher(how.search)(adjacency, rng, how.of_swarm(), iterations=how.iterations)


def propose(
    how: RoleStepSettings,
    adjacency: Array,
    agents: Sequence[Agent],
    rng: np.random.Generator,
    scored: Scores,
) -> tuple[list[AgentGraph], Array]:
    """The graphs to score next, and the positions (N, n, n) they come from (see `explore`).

    Draws from `rng`, the search's own.
    """
    graphs = _decode(how, adjacency, agents, rng)
    if how.explore == 0:
        return graphs, adjacency
    adjacency = adjacency.copy()
    off_diagonal = 1 - np.eye(len(agents))
    seen = set[AgentGraph]()
    for i, centre in enumerate(adjacency.copy()):
        size = how.explore
        for _ in range(EXPLORE_TRIES):
            if graphs[i] not in seen and graphs[i] not in scored:
                break
            moved = centre + size * rng.standard_normal(centre.shape) * off_diagonal
            [graph] = _decode(how, moved[None], agents, rng)
            if graph not in seen and graph not in scored:
                graphs[i], adjacency[i] = graph, moved
            size *= 1.5
        seen.add(graphs[i])
    return graphs, adjacency


def _decode(
    how: RoleStepSettings, adjacency: Array, agents: Sequence[Agent], rng: np.random.Generator
) -> list[AgentGraph]:
    return decode_swarm(
        adjacency,
        agents,
        p=how.top_p,
        rng=rng,
        threshold=how.threshold,
        leave_out=how.leave_out,
        successors=how.successors,
    )


def random_graphs(
    pool: Pool, count: int, *, seed: int = 0, top_p: float = 0.0, role: str = DEFAULT_ROLE
) -> list[AgentGraph]:
    """Graphs as a role-step starts with: decoded from uniform random matrices. A control."""
    rng = np.random.default_rng(seed)
    n = len(pool)
    adjacency = rng.random((count, n, n)) * (1 - np.eye(n))
    return decode_swarm(adjacency, name_agents(list(pool), role), p=top_p, rng=rng)
