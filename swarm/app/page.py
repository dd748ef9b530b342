"""What there is to see of a run: its best graph or policy, how the search went, where it failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.app.graph_argument import best_graph
from swarm.errors import BusyError
from swarm.graphs import AgentGraph
from swarm.store import EvaluationView, RunView, Store, TraceView

FIRST = 5
"""So many of the best evaluations, and of the failures, are shown."""


@dataclass(frozen=True)
class Iteration:
    """One iteration of a search."""

    number: int
    """From 1."""
    best: float
    mean: float
    best_so_far: float


@dataclass(frozen=True)
class Page:
    """One run, read from its store."""

    run: RunView
    status: str
    """The run's, or ``killed`` where its process ended without a word."""
    evaluations: Sequence[EvaluationView]
    graph: AgentGraph | None
    """The best."""
    policy: Mapping[str, Any] | None
    """The one that was evaluated or fitted: its name, fingerprint and settings."""
    best: Sequence[EvaluationView]
    """A few, the highest score first; of a policy's, the most questions first."""
    iterations: Sequence[Iteration]
    failures: Sequence[TraceView]
    """The first traces of the best evaluation, or of all of a policy's, that have an error, or
    score 0."""
    failed: int
    """How many there are."""


def look(store: Store, number: int) -> Page:
    """Reads a run's page; `InputError` if there is no such run."""
    run = store.run(number)
    evaluations = store.evaluations(number)
    policy = run.settings.get("policy") if run.kind == "evaluation" else None
    if policy is not None:
        best = sorted(evaluations, key=lambda evaluation: -evaluation.size)[:FIRST]
        failed = [n for each in evaluations for n in _failures(store, evaluations, each)]
    else:
        policy = (run.summary or {}).get("policy")
        # What was scored on a part of the questions only does not compare.
        whole = [each for each in evaluations if not each.info.get("partial")] or evaluations
        best = sorted(whole, key=lambda evaluation: -evaluation.score)[:FIRST]
        failed = _failures(store, evaluations, best[0]) if best else []
    return Page(
        run=run,
        status=status(store, run),
        evaluations=evaluations,
        graph=best_graph(store, run) if evaluations and policy is None else None,
        policy=policy,
        best=best,
        iterations=_iterations(store, run, evaluations) if run.kind == "job" else (),
        failures=[store.trace(number, trace) for trace in failed[:FIRST]],
        failed=len(failed),
    )


def status(store: Store, run: RunView) -> str:
    """A run that says it is running, and that nobody holds, was killed."""
    if run.status != "running":
        return run.status
    try:
        with store.lock_run(run.id):
            # It may have ended between two looks at it.
            now = store.run(run.id).status
            return "killed" if now == "running" else now
    except BusyError:
        return "running"


def _failures(
    store: Store, evaluations: Sequence[EvaluationView], best: EvaluationView
) -> list[int]:
    """Numbers of the traces of `best` that came to nothing."""
    before = sum(evaluation.size for evaluation in evaluations if evaluation.id < best.id)
    record = store.recorded(best.id)
    return [before + i for i, score in enumerate(record.scores) if score == 0 or i in record.errors]


def _iterations(
    store: Store, run: RunView, evaluations: Sequence[EvaluationView]
) -> list[Iteration]:
    """From the search's own history, where it keeps one, else from what was evaluated."""
    history: list[dict[str, Any]] = (store.state(run.id) or {}).get("history", [])
    # (Jobs of earlier versions have the scores in the entry itself.)
    steps = [[entry.get(step) for step in ("role", "weight")] for entry in history]
    scores = {
        k: [score for each in found if each for score in each["scores"]] or entry.get("scores", [])
        for k, (entry, found) in enumerate(zip(history, steps, strict=True), start=1)
    }
    scores = {k: each for k, each in scores.items() if each}
    if not scores:
        for evaluation in evaluations:
            number = evaluation.info.get("iteration")
            if isinstance(number, int):
                scores.setdefault(number, []).append(evaluation.score)
    found = []
    so_far = -math.inf
    for number, each in sorted(scores.items()):
        so_far = max(so_far, *each)
        found.append(Iteration(number, max(each), math.fsum(each) / len(each), so_far))
    return found
