"""A job as its store remembers it, iteration by iteration: all that plots and analyses need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from swarm.errors import InputError
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.pso import unpack
from swarm.optimizers.searchers.base import Array
from swarm.runtime.evaluate import interval
from swarm.store import EvaluationView, RunView, Store

Step = Literal["role", "weight"]


@dataclass(frozen=True, eq=False)
class RoleRecord:
    """What one role-step scored."""

    scores: Array
    """Shape (N,): one a particle."""
    whole: NDArray[np.bool_]
    """Shape (N,): False where the evaluation was stopped, since the rest could change nothing. The
    score is then the lowest it could have been (in a race: an estimate)."""
    positions: Array
    """Shape (N, n, n): the matrices that were scored."""
    graph: AgentGraph
    """The one of the highest score."""
    score: float


@dataclass(frozen=True, eq=False)
class WeightRecord:
    """What one weight-step scored."""

    graph: AgentGraph
    """The graph whose positions the casts fill."""
    assignments: NDArray[np.int64]
    """Shape (M, positions): the expert at each position of each cast, as index into the pool."""
    scores: Array
    """Shape (M,)."""
    jfk: Array
    """Shape (n,): the JFK-score of each expert after the step."""
    coefficients: Array
    """Shape (n, n): the experts' weights that were scored; row i over the initial experts."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """One iteration of a job. Counts of calls are from the job's beginning on."""

    number: int
    """From 1."""
    role: RoleRecord | None
    """None: dropped out (Dropout-R)."""
    weight: WeightRecord | None
    """None: dropped out, or the job has no weight-steps."""
    best_score: float
    """So far."""
    asked: int
    """Requests that engines answered."""
    calls: int
    """Agents × questions: what would have been asked had nothing been spared."""
    spared: Mapping[str, int] = field(default_factory=dict)
    """Calls that were not asked, by cause."""


class Best(NamedTuple):
    """What a job has found."""

    graph: AgentGraph
    score: float
    iteration: int
    step: Step
    coefficients: Mapping[str, Array]
    """By the experts' names in the graph: shape (n,), their weights over the initial experts."""


class Change(NamedTuple):
    """A better graph was found."""

    iteration: int
    step: Step
    graph: AgentGraph
    score: float


class Tested(NamedTuple):
    """The best graph on questions that it was not searched on."""

    evaluation: EvaluationView
    low: float
    high: float
    """95 % confidence interval of the score."""


@dataclass(frozen=True, eq=False)
class JobHistory:
    """The whole of one job: of `RoleStep` and `HeterogeneousSwarm` alike.

    ```
    job = JobHistory.load("swarm.db", 1)
    plot_convergence(job).savefig("convergence.png")
    ```
    """

    run: RunView
    experts: tuple[str, ...]
    """The pool's n experts, in its order."""
    iterations: tuple[Iteration, ...]
    best: Best
    evaluations: Sequence[EvaluationView] = ()
    """All that were recorded on the way. A graph whose evaluation was stopped, and taken up again
    in a later iteration, has several."""
    scores: Mapping[AgentGraph, Mapping[int, float]] = field(default_factory=dict)
    """What they come to on the split that is searched on: position in the split → score."""
    tested: Sequence[Tested] = ()
    """The best graph's evaluations on other splits, by this job or later, the latest of each."""

    @classmethod
    def load(cls, store: str | Store, run: int) -> Self:
        """Reads a job, finished or not.

        Raises:
            InputError: there is no such run, or it keeps no history of iterations.
        """
        with ExitStack() as stack:
            if isinstance(store, str):
                store = stack.enter_context(Store.open(store, create=False))
            view = store.run(run)
            if view.kind != "job":
                raise InputError(f"run {run} is no job but of kind `{view.kind}`: give a job's id")
            state = store.state(run) or {}
            if not state.get("history") or "search" not in state:
                raise InputError(
                    f"run {run} keeps no history of iterations: it has not finished one yet, or "
                    f"its optimizer (`{view.settings.get('optimizer')}`) does not search by steps"
                )
            evaluations = store.evaluations(run)
            each, scores = store.scores(run), dict[AgentGraph, dict[int, float]]()
            for evaluation in evaluations:
                if evaluation.split == view.settings["split"]:
                    scores.setdefault(evaluation.graph, {}).update(each[evaluation.id])
            job = cls(
                run=view,
                experts=tuple(view.settings["experts"]),
                iterations=tuple(
                    _iteration(number, entry)
                    for number, entry in enumerate(state["history"], start=1)
                ),
                best=_best(state["best"]),
                evaluations=evaluations,
                scores=scores,
            )
            return replace(job, tested=_tested(store, job))

    @property
    def task(self) -> str:
        return str(self.run.settings["task"])

    @property
    def split(self) -> str:
        """The questions that are searched on."""
        return str(self.run.settings["split"])

    @property
    def questions(self) -> int:
        """How many these are: as many as the best was scored on."""
        return len(self.scores[self.best.graph])

    def evaluations_of(self, graph: AgentGraph) -> list[EvaluationView]:
        """The evaluations of a graph on the split that is searched on: the first whole one, or else
        its parts."""
        own = [v for v in self.evaluations if v.graph == graph and v.split == self.split]
        return [view for view in own if view.size == self.questions][:1] or own

    def whole_scores(self) -> dict[AgentGraph, float]:
        """Every graph that was scored on all questions, with its score."""
        size = self.questions
        return {
            graph: math.fsum(scores.values()) / size
            for graph, scores in self.scores.items()
            if len(scores) == size
        }

    def changes(self) -> list[Change]:
        """Each better graph than all before, one an iteration at most; the last is the best."""
        scored, found = self.whole_scores(), list[Change]()
        by_iteration: dict[int, list[EvaluationView]] = {}
        for view in self.evaluations:
            by_iteration.setdefault(view.info.get("iteration", 0), []).append(view)
        for iteration in self.iterations:
            best = max(
                (view for view in by_iteration.get(iteration.number, ()) if view.graph in scored),
                key=lambda view: (scored[view.graph], view.graph == self.best.graph),
                default=None,
            )
            if best is not None and (not found or scored[best.graph] > found[-1].score):
                step: Step = "weight" if "cast" in best.info else "role"
                found.append(Change(iteration.number, step, best.graph, scored[best.graph]))
        return found


def pool_expert(name: str, experts: Sequence[str]) -> str:
    """The pool's expert behind an agent's: ``NAME``, or ``NAME@3`` with its weights of then."""
    return name if name in experts else name.rpartition("@")[0]


def _best(entry: Mapping[str, Any]) -> Best:
    return Best(
        graph=AgentGraph.from_json(entry["graph"]),
        score=entry["score"],
        iteration=entry["iteration"],
        step=entry["step"],
        coefficients={
            name: np.array(mixed["coefficients"], dtype=np.float64)
            for name, mixed in entry["experts"].items()
        },
    )


def _iteration(number: int, entry: Mapping[str, Any]) -> Iteration:
    role, weight = entry["role"], entry["weight"]
    return Iteration(
        number=number,
        role=role
        and RoleRecord(
            scores=np.array(role["scores"], dtype=np.float64),
            whole=np.array(role["whole"], dtype=bool),
            positions=unpack(role["positions"]),
            graph=AgentGraph.from_json(role["graph"]),
            score=role["score"],
        ),
        weight=weight
        and WeightRecord(
            graph=AgentGraph.from_json(weight["graph"]),
            assignments=np.array(weight["assignments"], dtype=np.int64),
            scores=np.array(weight["scores"], dtype=np.float64),
            jfk=np.array(weight["jfk"], dtype=np.float64),
            coefficients=np.array(weight["coefficients"], dtype=np.float64),
        ),
        best_score=entry["best_score"],
        asked=entry["asked"],
        calls=entry["calls"],
        spared=entry["spared"],
    )


def _tested(store: Store, job: JobHistory) -> list[Tested]:
    """A later evaluation counts if the same experts, weights included, gave its answers."""
    own = job.evaluations_of(job.best.graph)[0]
    found: dict[str, EvaluationView] = {}
    for run in reversed(store.runs()):
        if run.id == job.run.id:
            views = job.evaluations
        elif run.kind == "evaluation" and run.settings.get("task") == job.task:
            views = store.evaluations(run.id)
        else:
            continue
        for view in views:
            same = view.graph == own.graph and view.task == own.task and view.split != own.split
            if same and _players(store, view) == _players(store, own):
                found[view.split] = view
    return [Tested(view, *interval(store.recorded(view.id).scores)) for view in found.values()]


def _players(store: Store, evaluation: EvaluationView) -> list[bytes | None]:
    """Fingerprints of the experts that answered, agent by agent, in the first whole trace."""
    for trace in store.traces(evaluation.run, evaluation.id):
        if trace.error is None:
            return [call.expert and call.expert.fingerprint for call in trace.calls]
    return []
