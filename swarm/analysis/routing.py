"""How well routers choose, on questions whose outcomes with every expert are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarm.agents.recording import Recording
from swarm.errors import InputError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns, Estimator, Router
from swarm.optimizers.routers.select_llm import weighted_vote
from swarm.optimizers.voting import read_answer

RESAMPLES = 1000
"""Of a bootstrap."""
STEPS = 48
"""Trade-offs between nothing but score and nothing but cost."""


class Interval(NamedTuple):
    """A mean, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Routed:
    """What a router's choices came to, question by question."""

    columns: Columns
    scores: Floats
    """(n,)"""
    costs: Floats
    """(n,), USD."""

    @classmethod
    def of(cls, columns: Columns, outcomes: Outcomes) -> Routed:
        rows = np.arange(len(outcomes))
        return cls(columns, outcomes.scores[rows, columns], outcomes.costs[rows, columns])

    @property
    def accuracy(self) -> float:
        return float(self.scores.mean())

    @property
    def cost(self) -> float:
        """USD per 1 000 questions."""
        return 1000 * float(self.costs.mean())


class Point(NamedTuple):
    """A router at one trade-off."""

    cost: float
    """USD per 1 000 questions."""
    score: float
    trade_off: float = 0.0


def outcomes_of(recording: Recording, *, choices: bool = True) -> Outcomes:
    """A recording as what routers learn from; `meta` has all that some router may ask for:
    `benchmark`, `domain`, `gold`, `soft_scores`, `sample_answers`.

    Args:
        choices: whether lettered choices that a row has are part of its question.

    A cost that is not recorded is the mean of that expert's, 0 where there are none.

    Raises:
        InputError: some model was not asked every question.
    """
    if not np.isfinite(recording.scores).all():
        raise InputError(
            "not every model was asked every question: load the recording with "
            '`models="intersection"`, or fewer files'
        )
    known = np.isfinite(recording.costs)
    sums = np.where(known, recording.costs, 0).sum(axis=0)
    costs = np.where(known, recording.costs, sums / np.maximum(known.sum(axis=0), 1))
    soft = np.isfinite(recording.soft_scores)
    meta = []
    for i, row in enumerate(recording.rows):
        entry: dict[str, Any] = {"benchmark": row.benchmark}
        for key in ("domain", "gold"):
            if getattr(row, key) is not None:
                entry[key] = getattr(row, key)
        if soft[i].any():
            entry["soft_scores"] = {
                recording.models[j]: float(recording.soft_scores[i, j])
                for j in np.flatnonzero(soft[i])
            }
        if row.sample_answers:
            entry["sample_answers"] = row.sample_answers
        meta.append(entry)
    answers = None
    if any(row.answers for row in recording.rows):
        answers = tuple(
            tuple(row.answers.get(model) for model in recording.models) for row in recording.rows
        )
    questions = recording.prompts if choices else recording.questions
    return Outcomes(questions, recording.models, recording.scores, costs, answers, tuple(meta))


def split(
    outcomes: Outcomes, rng: np.random.Generator, *, share: float = 0.7, tag: str = "benchmark"
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit on and rows to judge by, `share` of each tag's questions in the former.

    Questions with the same text are on the same side.
    """
    fitted: list[int] = []
    judged: list[int] = []
    tags = np.array([str(each) for each in outcomes.tags(tag)])
    sides: dict[str, list[int]] = {}
    for name in np.unique(tags):
        rows = rng.permutation(np.flatnonzero(tags == name))
        most = round(share * len(rows))
        for place, row in enumerate(rows):
            side = sides.setdefault(outcomes.questions[row], fitted if place < most else judged)
            side.append(int(row))
    return np.array(sorted(fitted), dtype=np.intp), np.array(sorted(judged), dtype=np.intp)


def singles_of(outcomes: Outcomes) -> dict[str, Point]:
    """Expert → what it comes to alone."""
    costs = 1000 * outcomes.costs.mean(axis=0)
    return {
        name: Point(float(cost), float(score))
        for name, cost, score in zip(outcomes.experts, costs, outcomes.means, strict=True)
    }


def voted(outcomes: Outcomes, chosen: Columns, weights: Floats) -> Floats:
    """(n,): what the answers score that weigh most, by what the experts score that gave them.

    Args:
        chosen: (n, k) columns of who is asked.
        weights: (n, k) of their votes.

    Raises:
        InputError: answers are not known.
    """
    if outcomes.answers is None:
        raise InputError("a vote is of answers: give outcomes that have them")
    answers = [[read_answer(each) for each in given] for given in outcomes.answers]
    winners = weighted_vote(answers, chosen, weights)
    scores = np.zeros(len(outcomes))
    for row, (winner, given) in enumerate(zip(winners, answers, strict=True)):
        if winner is not None:
            scores[row] = outcomes.scores[row, [answer == winner for answer in given]].max()
    return scores


def interval(
    values: Sequence[Floats], rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> Interval:
    """The mean of the means of several groups of questions, each resampled within itself.

    Args:
        values: for each group (n_g,) scores.
    """
    mean = float(np.mean([group.mean() for group in values]))
    draws = np.zeros(resamples)
    for group in values:
        draws += resampled(len(group), rng, resamples=resamples) @ group / len(group)
    return Interval(mean, *limits(draws / len(values)))


def resampled(n: int, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """(resamples, n): how often each of n questions is drawn. (As one table: far faster than
    drawing rows.)"""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def limits(draws: Floats) -> tuple[float, float]:
    """Between what 95 % of a figure's resamples are."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def front(router: Router, outcomes: Outcomes, *, steps: int = STEPS) -> list[Point]:
    """A router's points along its trade-off, from score alone to cost alone.

    One point for a router that has no trade-off, or where nothing costs anything.
    """
    return [point for point, _ in swept(router, outcomes, steps=steps)]


def swept(
    router: Router, outcomes: Outcomes, *, steps: int = STEPS
) -> Iterator[tuple[Point, Routed]]:
    """The same, with what each came to."""
    if not isinstance(router, Estimator) or not outcomes.costs.any():
        routed = Routed.of(router.route(outcomes.questions), outcomes)
        yield Point(routed.cost, routed.accuracy), routed
        return
    values = router.estimates(outcomes.questions)
    costs = router.cost_estimates(outcomes.questions)
    for trade_off in trade_offs(router, steps):
        routed = Routed.of(router.choose(values - trade_off * costs), outcomes)
        yield Point(routed.cost, routed.accuracy, trade_off), routed


def trade_offs(router: Router, steps: int = STEPS) -> list[float]:
    """0, and values from where cost hardly counts to where nothing else does, in score per USD."""
    costs = np.sort(router.learned["costs"])
    gap = float(costs[-1] - costs[0]) or float(costs[-1]) or 1.0
    return [0.0, *(float(each) for each in np.geomspace(1e-3, 1e3, steps - 1) / gap)]


def hull(points: Sequence[Point | tuple[float, float]]) -> Floats:
    """(k, 2): cost and score along the non-decreasing convex hull of `points` (RouterBench, arXiv
    2403.12031, section 3): what is reached by going between two of them at random."""
    corners: list[tuple[float, float]] = []
    for cost, score in sorted((point[0], point[1]) for point in points):
        if corners and score <= corners[-1][1]:
            continue
        while len(corners) > 1 and _below(corners[-2], corners[-1], (cost, score)):
            corners.pop()
        if corners and corners[-1][0] == cost:
            corners.pop()
        corners.append((cost, score))
    return np.array(corners)


def _below(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    """Whether `middle` is on or below the line from `first` to `last`."""
    rise = (last[1] - first[1]) * (middle[0] - first[0])
    return (middle[1] - first[1]) * (last[0] - first[0]) <= rise


def aiq(points: Sequence[Point | tuple[float, float]], low: float, high: float) -> float:
    """Average improvement in quality (RouterBench, section 3): the mean height of the hull between
    the costs of the cheapest and of the dearest expert.

    Beyond its dearest point a hull goes on level; before its cheapest one it rises from no cost and
    no score.
    """
    corners = hull(points)
    if corners[0, 0] > low:
        corners = np.concatenate([[[0.0, 0.0]], corners])
    if not high > low:
        return float(np.interp(high, corners[:, 0], corners[:, 1]))
    inside = corners[(corners[:, 0] > low) & (corners[:, 0] < high), 0]
    costs = np.concatenate([[low], inside, [high]])
    heights = np.interp(costs, corners[:, 0], corners[:, 1])
    return float(np.trapezoid(heights, costs) / (high - low))


def cost_range(outcomes: Outcomes) -> tuple[float, float]:
    """USD per 1 000 questions of the cheapest and of the dearest expert."""
    means = 1000 * outcomes.costs.mean(axis=0)
    return float(means.min()), float(means.max())
