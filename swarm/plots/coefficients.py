"""What the weight-step made of the experts: each one's weights as a mixture of the initial ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm.analysis.job import Iteration, JobHistory
from swarm.errors import InputError
from swarm.optimizers.searchers.base import Array
from swarm.plots.style import WIDTH, new_figure, style, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12
"""More small pictures than that are thinned out: the first and the last stay."""

_READABLE = 12
"""With more experts than that numbers don't fit into their cells."""


def plot_coefficients(job: JobHistory) -> Figure:
    """The coefficients scored in the last weight-step: row i is expert i's weights, entry (i, k)
    how much of initial expert k is in them.

    Raises:
        InputError: the job has no weight-steps.
    """
    last = _steps(job)[-1]
    assert last.weight is not None
    rows = last.weight.coefficients
    n = len(rows)
    with style():
        figure = new_figure(min(WIDTH, 2.6 + 0.42 * n), 1.9 + 0.36 * n)
        axes = figure.subplots()
        shown = _heat(axes, rows, limit=_limit([rows]))
        axes.set_xticks(range(n), job.experts)
        if max(map(len, job.experts)) > 5:  # they would run into each other
            axes.tick_params(axis="x", labelrotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), job.experts)
        axes.set_xlabel("initial expert")
        axes.set_ylabel(f"expert in iteration {last.number}")
        if n <= _READABLE:
            for (i, k), value in np.ndenumerate(rows):
                axes.annotate(
                    f"{value:.2f}".replace("-0.00", "0.00"),
                    (k, i),
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if abs(value) > 0.6 * _limit([rows]) else "black",
                )
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, aspect=25)
        bar.set_label("coefficient", fontsize=8)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
        figure.suptitle(title(job, "Coefficients"), x=0.01, ha="left")
        return figure


def plot_coefficients_by_iteration(job: JobHistory) -> Figure:
    """The same as small pictures, one a weight-step, on one scale.

    Raises:
        InputError: the job has no weight-steps.
    """
    steps = _steps(job)
    kept = np.linspace(0, len(steps) - 1, min(MOST, len(steps))).round().astype(int)
    shown_steps = [steps[i] for i in kept]
    matrices = [step.weight.coefficients for step in shown_steps if step.weight is not None]
    columns = min(4, len(matrices))
    rows = -(-len(matrices) // columns)
    with style():
        figure = new_figure(WIDTH, 1.0 + 1.75 * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.ravel()[len(matrices) :]:
            axes.remove()
        for axes, step, matrix in zip(grid.ravel(), shown_steps, matrices, strict=False):
            shown = _heat(axes, matrix, limit=_limit(matrices))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"iteration {step.number}", fontsize=8, fontweight="normal", pad=3)
        n = len(job.experts)
        for axes in grid[:, 0]:
            axes.set_yticks(range(n), job.experts, fontsize=5.5 if n > 8 else 7)
        bar = figure.colorbar(
            shown,
            ax=list(grid.ravel()[: len(matrices)]),
            location="bottom",
            shrink=0.4,
            aspect=30,
            pad=0.03,
        )
        bar.set_label(
            "coefficient (rows: experts; columns: initial experts, in the same order)", fontsize=8
        )
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
        figure.suptitle(title(job, "Coefficients by iteration"), x=0.01, ha="left")
        return figure


def _steps(job: JobHistory) -> list[Iteration]:
    steps = [iteration for iteration in job.iterations if iteration.weight is not None]
    if not steps:
        raise InputError(f"run {job.run.id} has no weight-steps, so there are no coefficients")
    return steps


def _limit(matrices: Sequence[Array]) -> float:
    return max(float(np.abs(matrix).max()) for matrix in matrices)


def _heat(axes: Axes, matrix: Array, *, limit: float) -> Any:
    """0 is white; red takes away, blue puts in."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
