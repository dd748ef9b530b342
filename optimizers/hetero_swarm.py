"""Heterogeneous Swarms (arXiv 2502.04510), whole: role-step and weight-step take turns.

The role-step (section 3.1) moves graphs, the weight-step (section 3.2) the experts' weights; the
best graph, cast and weights over both are kept. Algorithm 1 of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from swarm.agents.expert import Pool
from swarm.agents.mixing import Mixer
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.base import Workload
from swarm.optimizers.job import Job
from swarm.optimizers.pso import ParticleSwarm
from swarm.optimizers.role_step import (
    Cast,
    RoleSearch,
    RoleStep,
    RoleStepSettings,
    Version,
    mean_score,
    with_versions,
)
from swarm.optimizers.searchers.base import Array
from swarm.optimizers.weight_step import draw_assignments, jfk_scores, weight_swarm
from swarm.store import EvaluationRecord

KEPT = -1
"""In a cast: the position is played as in the best system."""


class HeterogeneousSwarmSettings(RoleStepSettings):
    """The knobs of `HeterogeneousSwarm`: those of the role-step, which are for both swarms where
    they are about a swarm, and those of the weight-step."""

    assignments: int = Field(10, ge=1)
    """M: how many casts of the best graph are scored in a weight-step."""
    dropout_role: float = Field(0.0, ge=0, le=1)
    """d_r, "dropout-R": the chance that an iteration has no role-step. (The first always has.)"""
    dropout_weights: float = Field(0.0, ge=0, le=1)
    """d_w, "dropout-W": the chance that an iteration has no weight-step."""
    best_graph: Literal["found", "iteration"] = "found"
    """Which graph is cast: the best found so far (the paper), or this iteration's (its code)."""
    keep: float = Field(0.7, ge=0, lt=1)
    """Beyond the paper: the chance that a position of a cast keeps the expert that plays it in the
    best system found. Another is played by that expert as it now is or by any, with equal chances.
    So casts are neighbours of what works, and say what a moved expert is worth in it. 0: every
    position is drawn anew, as published."""
    role_experts: Literal["found", "current"] = "found"
    """Beyond the paper: role-steps search with the experts of the best system found. `current`:
    with the experts as the weight-step has moved them, as published."""

    _beyond: ClassVar[dict[str, Any]] = {
        **RoleStepSettings._beyond,
        "keep": 0.0,
        "role_experts": "current",
    }

    @field_validator("randomness")
    @classmethod
    def _check_randomness(cls, value: str) -> str:
        if value == "entry":
            raise ValueError(
                "must be `scalar` or `none`: random numbers an entry would leave the span of the "
                "experts' weights"
            )
        return value


class HeterogeneousSwarm(RoleStep):
    """Searches for the graph and the experts' weights, in turns.

    ```
    best = swarm.HeterogeneousSwarm(particles=10, assignments=10, iterations=10).fit(task, pool)
    ```

    The experts' weights must be in folders (adapters of one base, or models of one architecture):
    `fit` raises `PoolError` where they can't be mixed.
    """

    name: ClassVar[str] = "hetero_swarm"
    _type = HeterogeneousSwarmSettings
    """Its fields are what `HeterogeneousSwarm(…)` takes."""

    def workload(self, pool: Pool) -> Workload:
        assert isinstance(self._settings, HeterogeneousSwarmSettings)
        return replace(super().workload(pool), casts=self._settings.assignments)

    def _cast(self, pool: Pool) -> Cast:
        return MovingCast(pool, Mixer(pool))

    @property
    def _search(self) -> type[RoleSearch]:
        return JointSearch


class MovingCast(Cast):
    """Experts whose weights move."""

    def __init__(self, pool: Pool, mixer: Mixer) -> None:
        super().__init__(pool)
        self._mixer = mixer

    def pool_of(self, names: Iterable[str]) -> Pool:
        """The experts of these names, as they were and are."""
        versions = {name: self.versions[name] for name in dict.fromkeys(names)}
        return with_versions(self._given, versions, self._mixer)

    def move(self, rows: Array, iteration: int) -> None:
        """The experts' weights are now these, shape (n, n). One that is again as it was before has
        its name of then again, and with it all that is known of it."""
        names = []
        for of, row in zip(self._given, rows, strict=True):
            was = [
                name
                for name, version in self.versions.items()
                if version.of == of and np.array_equal(version.coefficients, row)
            ]
            name = was[0] if was else f"{of}@{iteration}"
            while not was and name in self.versions:
                name += "'"
            self.versions.setdefault(name, Version(of, row.copy()))
            names.append(name)
        self.names = tuple(names)

    def restore(self, versions: dict[str, Version], names: Sequence[str]) -> None:
        """Takes up the experts where they were left."""
        self.versions, self.names = versions, tuple(names)


@dataclass
class JointSearch(RoleSearch):
    """One search in progress, of graphs and weights."""

    settings: HeterogeneousSwarmSettings
    cast: MovingCast

    def __post_init__(self) -> None:
        super().__post_init__()
        how, n = self.settings, len(self.agents)
        # One generator for both steps, so that one seed and one state are the whole story.
        self.weights = weight_swarm(n, self.searcher.rng, how.of_swarm(), iterations=how.iterations)
        self.jfk = np.zeros(n)
        self._stale = 0

    @property
    def needs_top(self) -> bool:
        return self.settings.best_graph == "iteration"

    @property
    def done(self) -> bool:
        """Patience is with both: an iteration in which either finds something better counts."""
        return self.iteration >= self.settings.iterations or self._stale >= self.settings.patience

    async def step(self, job: Job) -> float:
        how, rng = self.settings, self.searcher.rng
        before = self.best
        drop_role, drop_weights = rng.random(2) < (how.dropout_role, how.dropout_weights)
        role: dict[str, Any] | None = None
        weight: dict[str, Any] | None = None
        records: list[EvaluationRecord] = []
        graph = before.graph if before is not None else None
        if not drop_role or graph is None:
            role, records = await self.role_step()
            assert self.best is not None
            graph = self.best.graph
            if how.best_graph == "iteration":
                graph = AgentGraph.from_json(role["graph"])
        if not drop_weights:
            weight, made = await self.weight_step(graph)
            records += made
        improved = before is None or (self.best is not None and self.best.score > before.score)
        self._stale = 0 if improved else self._stale + 1
        self.commit(job, {"role": role, "weight": weight}, records)
        if role is None:
            return float(np.mean(weight["scores"])) if weight else self.history[-1]["best_score"]
        return mean_score(role)

    def role_experts(self) -> list[str]:
        if self.best is None or self.settings.role_experts == "current":
            return super().role_experts()
        found = {agent.name: agent.expert for agent in self.best.graph.agents}
        # An agent that was left out of the graph is played by who began with it.
        return [found.get(agent.name, agent.expert) for agent in self.agents]

    async def weight_step(self, graph: AgentGraph) -> tuple[dict[str, Any], list[EvaluationRecord]]:
        """M casts of `graph` are scored, and with it the experts, whose weights then move; what the
        history keeps of it, and the evaluations."""
        how, cast, n = self.settings, self.cast, len(self.agents)
        casts = draw_assignments(how.assignments, len(graph.agents), n, self.searcher.rng)
        names = np.array(cast.names)[casts]
        if how.keep:
            assert self.best is not None
            rng = self.searcher.rng
            own = np.array([cast.index(agent.expert) for agent in graph.agents])
            moved = rng.random(casts.shape) < 0.5
            casts = np.where(moved, own, casts)
            kept = rng.random(casts.shape) < how.keep
            names = np.where(kept, [a.expert for a in graph.agents], np.array(cast.names)[casts])
            casts = np.where(kept, KEPT, casts)
        graphs = [graph.with_experts(row) for row in names.tolist()]
        pool = cast.pool_of(name for row in names.tolist() for name in row)
        # Whole: these scores enter a mean.
        scores, evaluations = await self.scores(graphs, pool)
        for each, score in zip(graphs, scores, strict=True):
            self._consider(each, score.low, "weight")
        values = [score.low for score in scores]
        self.jfk = jfk_scores(casts, values, self.jfk)
        rows = self.weights.ask()
        self.weights.tell(self.jfk)
        entry = {
            "graph": graph.to_json(),
            "assignments": casts.tolist(),
            "scores": values,
            "jfk": self.jfk.tolist(),
            "coefficients": rows.tolist(),
        }
        where = {each: {"cast": m} for m, each in reversed(list(enumerate(graphs)))}
        records = self._records(evaluations, where)
        cast.move(self.weights.ask(), self.iteration + 1)
        return entry, records

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "weights": self.weights.state(),
            "jfk": self.jfk.tolist(),
            "stale": self._stale,
            "experts": list(self.cast.names),
            "versions": {n: v.as_json() for n, v in self.cast.versions.items()},
        }

    def restore(self, job: Job) -> None:
        super().restore(job)
        if (state := job.state) is None:
            return
        self.weights = ParticleSwarm.restore(state["weights"])
        self.weights.rng = self.searcher.rng
        self.jfk = np.array(state["jfk"], dtype=np.float64)
        self._stale = state["stale"]
        versions = {name: Version.from_json(each) for name, each in state["versions"].items()}
        self.cast.restore(versions, state["experts"])
