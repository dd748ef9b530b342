"""How the search got better: every score, the best so far, and the best on other questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swarm.analysis.job import JobHistory
from swarm.optimizers.searchers.base import Array
from swarm.plots.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    VERMILLION,
    Label,
    iteration_axis,
    label_right,
    new_figure,
    style,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_convergence(job: JobHistory) -> Figure:
    """Score against iteration: a dot a particle (and a cast of the weight-step), the best so far
    as a line, the best graph's test score, where there is one, with its 95 % interval.

    Hollow dots are evaluations that were stopped early, since nothing depended on the rest; they
    are drawn at the lowest score that is still possible (in a race: at the estimate).
    """
    with style():
        figure = new_figure()
        axes = figure.subplots()
        roles = [(i.number, i.role) for i in job.iterations if i.role is not None]
        weights = [(i.number, i.weight) for i in job.iterations if i.weight is not None]
        shift = 0.17 if roles and weights else 0.0
        racing = job.run.settings.get("racing") is not None
        kinds: dict[str, _Dots] = {
            "a particle's graph": _Dots(BLUE, whole=True),
            f"stopped early ({'estimate' if racing else 'at least'})": _Dots(BLUE, whole=False),
            "a cast of the weight-step": _Dots(ORANGE, whole=True),
        }
        whole, stopped, casts = kinds.values()
        for number, role in roles:
            x = number - shift + _side_by_side(len(role.scores))
            whole.add(x[role.whole], role.scores[role.whole])
            stopped.add(x[~role.whole], role.scores[~role.whole])
        for number, weight in weights:
            casts.add(number + shift + _side_by_side(len(weight.scores)), weight.scores)
        for label, dots in kinds.items():
            dots.draw(axes, label)
        best = [iteration.best_score for iteration in job.iterations]
        end = len(best) + 0.5
        line = [best[0], *best, best[-1]]
        axes.step([0.5, *range(1, len(best) + 1), end], line, where="mid", color=INK, linewidth=1.5)
        iteration_axis(axes, job)
        labels = [Label(best[-1], f"best on {job.split}\n{best[-1]:.3f}", INK)]
        for evaluation, low, high in job.tested:
            axes.errorbar(
                end,
                evaluation.score,
                # At 0 and 1 an end of the interval is the score but for rounding.
                yerr=[[max(evaluation.score - low, 0)], [max(high - evaluation.score, 0)]],
                fmt="D",
                markersize=5,
                color=VERMILLION,
                linewidth=1.2,
                clip_on=False,
                zorder=4,
            )
            text = (
                f"best graph on {evaluation.split}\n{evaluation.score:.3f} [{low:.3f}, {high:.3f}]"
            )
            labels.append(Label(evaluation.score, text, VERMILLION))
        axes.set_ylabel(f"score on {job.split} ({job.questions:,} questions)")
        axes.grid(axis="y")
        axes.set_title(title(job, "Convergence"), pad=24)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.015, 1.0),
            ncols=len(kinds),
            fontsize=8,
            labelcolor=FAINT,
            handletextpad=0.1,
            columnspacing=1.2,
            borderpad=0.2,
        )
        label_right(axes, labels)
        return figure


def _side_by_side(count: int) -> Array:
    """Offsets that let equal scores of one iteration be told apart."""
    return np.linspace(-0.11, 0.11, count)


class _Dots:
    """Dots of one kind, collected to be drawn at once."""

    def __init__(self, colour: str, *, whole: bool) -> None:
        self._colour = colour
        self._whole = whole
        self._x: list[float] = []
        self._y: list[float] = []

    def add(self, x: Array, y: Array) -> None:
        self._x += x.tolist()
        self._y += y.tolist()

    def draw(self, axes: Axes, label: str) -> None:
        if self._x:
            axes.scatter(
                self._x,
                self._y,
                s=13,
                facecolor=self._colour if self._whole else "white",
                edgecolor=self._colour,
                linewidth=0 if self._whole else 0.8,
                alpha=0.6,
                zorder=3,
                label=label,
            )
