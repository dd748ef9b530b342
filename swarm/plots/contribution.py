"""Who contributes: JFK-scores through the iterations, or scores by an expert's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swarm.analysis.contribution import by_place, jfk_by_iteration
from swarm.analysis.job import JobHistory
from swarm.errors import InputError
from swarm.plots.style import (
    PALETTE,
    RULE,
    WIDTH,
    Label,
    iteration_axis,
    label_right,
    new_figure,
    style,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_contribution(job: JobHistory) -> Figure:
    """JFK-score of each expert against iteration: how good the casts are that it stands in.

    Raises:
        InputError: the job has no weight-steps.
    """
    if not any(iteration.weight for iteration in job.iterations):
        raise InputError(f"run {job.run.id} has no weight-steps, so there are no JFK-scores")
    scores = jfk_by_iteration(job)
    steps = [i for i, iteration in enumerate(job.iterations) if iteration.weight is not None]
    with style():
        figure = new_figure()
        axes = figure.subplots()
        labels = []
        for i, expert in enumerate(job.experts):
            colour = PALETTE[i % len(PALETTE)]
            line = ("-", "--", ":")[i // len(PALETTE) % 3]
            axes.plot(
                np.array(steps) + 1,
                scores[steps, i],
                color=colour,
                linestyle=line,
                linewidth=1.4,
                marker="o",
                markersize=2.5,
            )
            if not np.isnan(scores[-1, i]):
                label = f"{expert} {scores[-1, i]:.3f}"
                labels.append(Label(float(scores[-1, i]), label, colour))
        iteration_axis(axes, job)
        axes.set_ylabel(f"JFK-score (score of its casts on {job.split})")
        axes.grid(axis="y")
        axes.set_title(title(job, "Contribution of each expert"))
        label_right(axes, labels)
        return figure


def plot_places(job: JobHistory) -> Figure:
    """Mean score of the graphs in which an expert stands so many steps from the end node.

    In small: how many graphs that is. Means of few graphs say little.
    """
    mean, graphs = by_place(job)
    n, places = mean.shape
    with style():
        figure = new_figure(min(WIDTH, 2.4 + 0.62 * places), 1.5 + 0.34 * n)
        axes = figure.subplots()
        # A shade of light grey is no colour of the map: no graph has this expert there.
        axes.set_facecolor(RULE)
        shown = axes.imshow(np.ma.masked_invalid(mean), cmap="viridis", aspect="auto")
        low, high = np.nanmin(mean), np.nanmax(mean)
        axes.set_xticks(range(places), ["end", *map(str, range(1, places))])
        axes.set_yticks(range(n), job.experts)
        axes.set_xlabel("steps to the end node")
        axes.set_ylabel("expert")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for i, d in zip(*np.nonzero(graphs), strict=True):
            dark = mean[i, d] < low + 0.6 * (high - low)
            axes.annotate(
                f"{mean[i, d]:.2f}\n",
                (d, i),
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if dark else "black",
                linespacing=0.9,
            )
            axes.annotate(
                f"{graphs[i, d]:.0f}",
                (d, i),
                xytext=(0, -5),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=5.5,
                color="white" if dark else "black",
            )
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, aspect=25)
        bar.set_label(f"mean score on {job.split}", fontsize=8)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
        figure.suptitle(title(job, "Score by place of each expert"), x=0.01, ha="left")
        return figure
