"""How a policy learned, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarm.errors import InputError
from swarm.plots.style import BLUE, FAINT, INK, VERMILLION, counted_axis, new_figure, style
from swarm.store import BatchView, RunView

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_learning(run: RunView, batches: Sequence[BatchView]) -> Figure:
    """Each figure that the job told of its epochs, one below the other; a diamond where what was
    learned until then was kept.

    Raises:
        InputError: the run told of none.
    """
    rows = (run.summary or {}).get("learning")
    if not rows:
        raise InputError(f"run {run.id} does not say how it learned epoch by epoch")
    figures = [
        name
        for name in rows[0]
        if name not in {"epoch", "kept"} and all(row[name] is not None for row in rows)
    ]
    epochs = [row["epoch"] for row in rows]
    with style():
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(height=0.7 + 1.25 * len(figures))
        panels = figure.subplots(len(figures), squeeze=False, sharex=True)[:, 0]
        for axes, name in zip(panels, figures, strict=True):
            values = [row[name] for row in rows]
            axes.plot(epochs, values, color=BLUE, linewidth=1.5, marker="o", markersize=3.5)
            for epoch, value, row in zip(epochs, values, rows, strict=True):
                if row["kept"]:
                    axes.plot(epoch, value, "D", color=VERMILLION, markersize=6, zorder=4)
                    axes.annotate(
                        f"{value:.3g}",
                        (epoch, value),
                        (0, 7),
                        textcoords="offset points",
                        ha="center",
                        color=INK,
                        fontsize=8,
                    )
            axes.set_title(name, fontsize=9, fontweight="normal", color=FAINT, pad=4)
            axes.margins(y=0.3)
            axes.grid(axis="y")
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(axis="x", length=0)
        counted_axis(panels[-1], "epoch", epochs[-1], first=epochs[0])
        figure.suptitle(f"Learning · run {run.id}: {run.name}", x=0.01, ha="left")
        return figure
