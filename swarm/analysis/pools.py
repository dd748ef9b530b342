"""Results of several jobs by what their pools are: number of experts, and diversity.

Heterogeneous Swarms (arXiv 2502.04510, the analyses of the number and of the diversity of experts)
searches with pools of 2 to 10 experts, and with pools of 10 in which 1, 2, 5 or 10 are distinct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from swarm.analysis.job import JobHistory


class Outcome(NamedTuple):
    """What one job came to, and with what pool."""

    run: int
    task: str
    optimizer: str
    experts: int
    """In the pool."""
    distinct: int
    """Of them, how many differ in weights or sampling, whatever they are called."""
    dev: float
    """The best score on the split that was searched on."""
    test: float | None
    """The same graph on questions it was not searched on; None where it was not run on any."""
    asked: int


class Row(NamedTuple):
    """Jobs with one thing in common."""

    value: int
    jobs: int
    mean: float
    low: float
    high: float
    """The lowest and the highest of the jobs."""


def outcome(job: JobHistory) -> Outcome:
    """The figures of one job; of several test evaluations the one on most questions counts."""
    fingerprints = {entry["fingerprint"] for entry in job.run.settings["experts"].values()}
    tested = max(job.tested, key=lambda tested: tested.evaluation.size, default=None)
    return Outcome(
        run=job.run.id,
        task=job.task,
        optimizer=str(job.run.settings["optimizer"]),
        experts=len(job.experts),
        distinct=len(fingerprints),
        dev=job.best.score,
        test=None if tested is None else tested.evaluation.score,
        asked=job.iterations[-1].asked,
    )


def by_number(outcomes: Sequence[Outcome]) -> list[Row]:
    """Scores by the number of experts; see `scores_by`."""
    return scores_by(outcomes, lambda outcome: outcome.experts)


def by_diversity(outcomes: Sequence[Outcome]) -> list[Row]:
    """Scores by the number of distinct experts; see `scores_by`."""
    return scores_by(outcomes, lambda outcome: outcome.distinct)


def scores_by(outcomes: Sequence[Outcome], value: Callable[[Outcome], int]) -> list[Row]:
    """Test scores where every job has one (`measured_on`), else dev scores, grouped by a value."""
    groups: dict[int, list[float]] = {}
    on_test = measured_on(outcomes) == "test"
    for one in outcomes:
        score = one.test if on_test and one.test is not None else one.dev
        groups.setdefault(value(one), []).append(score)
    return [
        Row(value, len(scores), fmean(scores), min(scores), max(scores))
        for value, scores in sorted(groups.items())
    ]


def measured_on(outcomes: Sequence[Outcome]) -> str:
    """``test`` if every job has a test score, else ``dev``."""
    return "test" if all(one.test is not None for one in outcomes) else "dev"
