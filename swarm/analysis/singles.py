"""Scores question by question: of a recorded evaluation, and of each expert alone beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from swarm.graphs.graph import DEFAULT_ROLE, AgentGraph
from swarm.optimizers.searchers.base import Array
from swarm.store import EvaluationView, RunView, Store

Scores = Mapping[bytes, float]
"""By the questions' content address."""


def scores_of(store: Store, *evaluations: EvaluationView) -> Scores:
    """The scores of a recorded evaluation, or of one that is in parts."""
    found: dict[bytes, float] = {}
    for evaluation in evaluations:
        record = store.recorded(evaluation.id)
        digests = [question.digest for question in record.questions]
        found.update(zip(digests, record.scores, strict=True))
    return found


def alone(
    store: Store, run: RunView, experts: Sequence[str], beside: EvaluationView
) -> dict[str, Scores]:
    """The scores of each of the `experts` alone on the split of `beside`, as far as recorded.

    Any run of the store counts in which a graph of that one expert was scored: the same weights and
    sampling as in `run`, the same task, the role of a solver. An expert that was never scored so is
    missing. Of several evaluations the one with the most questions counts, then the latest.
    """
    wanted = {name: _fingerprint(run, name) for name in experts}
    found: dict[str, EvaluationView] = {}
    for other in reversed(store.runs()):
        ours = {
            name
            for name, fingerprint in wanted.items()
            if fingerprint is not None and _fingerprint(other, name) == fingerprint
        }
        if other.kind not in ("evaluation", "job") or not ours:
            continue
        for view in store.evaluations(other.id):
            name = _single(view.graph)
            # What a policy chose an expert for says nothing of it elsewhere.
            right_place = view.task == beside.task and view.split == beside.split
            right_place = right_place and "policy" not in view.info
            if name in ours and right_place and _size(found.get(name)) <= view.size:
                found[name] = view
    return {name: scores_of(store, found[name]) for name in experts if name in found}


def side_by_side(system: Scores, experts: Mapping[str, Scores]) -> tuple[Array, Array]:
    """Scores on the questions that all have answered: shapes (questions,) and (n, questions)."""
    common = [question for question in system if all(question in one for one in experts.values())]
    return (
        np.array([system[question] for question in common], dtype=np.float64),
        np.array(
            [[one[question] for question in common] for one in experts.values()], dtype=np.float64
        ),
    )


def _fingerprint(run: RunView, name: str) -> str | None:
    known: str | None = run.settings.get("experts", {}).get(name, {}).get("fingerprint")
    return known


def _single(graph: AgentGraph) -> str:
    """The expert of a graph of one; an empty text, which is no expert's name, for other graphs."""
    [agent, *others] = graph.agents
    return agent.expert if not others and agent.role == DEFAULT_ROLE else ""


def _size(view: EvaluationView | None) -> int:
    return 0 if view is None else view.size
