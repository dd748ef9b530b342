"""What the search cost: calls that engines answered, and calls that were spared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swarm.analysis.job import JobHistory
from swarm.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    Label,
    iteration_axis,
    label_right,
    new_figure,
    style,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAUSES = {
    "known": ("answered before", SKY),
    "shared": ("asked by another", GREEN),
    "memo": ("graph scored before", ORANGE),
    "bounds": ("stopped by bounds", PURPLE),
}
"""Why a call was not asked: what it is called here, and its colour."""


def plot_calls(job: JobHistory) -> Figure:
    """Calls of each iteration, stacked: asked of engines at the bottom, above them what was spared,
    by cause. At the right: the whole job's."""
    last = job.iterations[-1]
    causes = [*CAUSES, *sorted(set(last.spared) - set(CAUSES))]
    totals = {"asked": [iteration.asked for iteration in job.iterations]}
    for cause in causes:
        totals[cause] = [iteration.spared.get(cause, 0) for iteration in job.iterations]
    each = {name: np.diff(counts, prepend=0) for name, counts in totals.items() if counts[-1]}
    with style():
        figure = new_figure()
        axes = figure.subplots()
        numbers = np.arange(1, len(job.iterations) + 1)
        floor = np.zeros(len(numbers))
        labels = []
        for name, counts in each.items():
            text, colour = CAUSES.get(name, (name, FAINT)) if name != "asked" else ("asked", BLUE)
            axes.bar(
                numbers, counts, bottom=floor, width=0.8, color=colour, edgecolor="w", linewidth=0.4
            )
            share = totals[name][-1] / max(last.calls, 1)
            label = f"{text}\n{totals[name][-1]:,} ({share:.1%})"
            labels.append(Label(float(floor[-1] + counts[-1] / 2), label, colour))
            floor = floor + counts
        iteration_axis(axes, job)
        axes.set_ylabel("calls an iteration (agents × questions)")
        axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
        axes.grid(axis="y")
        axes.set_title(title(job, f"Calls, {last.calls:,} in all"))
        label_right(axes, labels)
        return figure
