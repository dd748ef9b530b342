"""A job as its store remembers it, iteration by iteration: all that plots and analyses need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
    """Shape (N,): False where the evaluation was stopped, since its end could change nothing; the
    score is then a bound."""
    positions: Array
    """Shape (N, n, n): the matrices that were scored."""
    graph: AgentGraph
    """The best of this iteration."""
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
    """All that was recorded on the way."""
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
            best, evaluations = _best(state["best"]), store.evaluations(run)
            return cls(
                run=view,
                experts=tuple(view.settings["experts"]),
                iterations=tuple(
                    _iteration(number, entry)
                    for number, entry in enumerate(state["history"], start=1)
                ),
                best=best,
                evaluations=evaluations,
                tested=_tested(store, view, best, evaluations),
            )

    @property
    def task(self) -> str:
        return str(self.run.settings["task"])

    @property
    def split(self) -> str:
        """The questions that are searched on."""
        return str(self.run.settings["split"])

    @property
    def questions(self) -> int | None:
        """How many questions the best was scored on; None if its evaluation was not recorded."""
        found = self.best_evaluation
        return None if found is None else found.size

    @property
    def best_evaluation(self) -> EvaluationView | None:
        """The evaluation that found the best."""
        return _of_best(self.best, self.split, self.evaluations)

    @property
    def whole_evaluations(self) -> list[EvaluationView]:
        """Those on all questions of the split that is searched on."""
        own = [view for view in self.evaluations if view.split == self.split]
        size = max((view.size for view in own), default=0)
        return [view for view in own if view.size == size]

    def changes(self) -> list[Change]:
        """Each better graph than all before, one an iteration at most."""
        found: list[Change] = []
        for iteration in self.iterations:
            best = max(self._candidates(iteration), key=lambda change: change.score, default=None)
            if best is not None and (not found or best.score > found[-1].score):
                found.append(best)
        return found

    def _candidates(self, iteration: Iteration) -> Iterator[Change]:
        if (role := iteration.role) is not None:
            yield Change(iteration.number, "role", role.graph, role.score)
        if (weight := iteration.weight) is not None:
            cast = int(np.argmax(weight.scores))
            names = [self.experts[expert] for expert in weight.assignments[cast]]
            graph = weight.graph.with_experts(names)
            yield Change(iteration.number, "weight", graph, float(weight.scores[cast]))


def pool_expert(name: str, experts: Sequence[str]) -> str:
    """The pool's expert behind an agent's: `NAME`, or `NAME@t` for its weights at some time."""
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


def _of_best(
    best: Best, split: str, evaluations: Sequence[EvaluationView]
) -> EvaluationView | None:
    found = [
        view
        for view in evaluations
        if view.graph == best.graph and view.split == split and view.score == best.score
    ]
    return found[0] if found else None


def _tested(
    store: Store, job: RunView, best: Best, evaluations: Sequence[EvaluationView]
) -> list[Tested]:
    """A later evaluation counts if the same experts, weights included, gave its answers."""
    own = _of_best(best, job.settings["split"], evaluations)
    if own is None:
        return []
    found: dict[str, EvaluationView] = {}
    for run in reversed(store.runs()):
        if run.id == job.id:
            views = evaluations
        elif run.kind == "evaluation" and run.settings.get("task") == job.settings["task"]:
            views = store.evaluations(run.id)
        else:
            continue
        for view in views:
            same = view.graph == best.graph and view.task == own.task and view.split != own.split
            if same and _players(store, view) == _players(store, own):
                found[view.split] = view
    return [Tested(view, *interval(store.recorded(view.id).scores)) for view in found.values()]


def _players(store: Store, evaluation: EvaluationView) -> list[bytes | None]:
    """Fingerprints of the experts that answered, agent by agent, in the first whole trace."""
    for trace in store.traces(evaluation.run, evaluation.id):
        if trace.error is None:
            return [call.expert and call.expert.fingerprint for call in trace.calls]
    return []
