"""How all pictures look: one palette, one font size, nothing that carries no data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from swarm.analysis.job import JobHistory
from swarm.errors import MissingPackageError
from swarm.optimizers.searchers.base import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
SKY, PURPLE, BROWN = "#56b4e9", "#cc79a7", "#8c510a"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, BROWN)
"""Told apart by the colour-blind (Okabe and Ito, https://jfly.uni-koeln.de/color/)."""
INK, FAINT, RULE = "#0f172a", "#64748b", "#e2e8f0"

WIDTH = 6.5
"""Inches: a page's text."""

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.titlesize": 10,
    "figure.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "grid.color": RULE,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "swarm",
    "text.color": INK,
    # Names of experts and tasks are texts, whatever signs are in them.
    "text.parse_math": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside look like all others.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError:
        raise MissingPackageError("matplotlib", "plot", "drawing a picture") from None
    with rc_context(_STYLE):
        yield


def new_figure(width: float = WIDTH, height: float = 3.6) -> Figure:
    """An empty figure, in inches, that belongs to the caller alone: pyplot knows nothing of it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def save(figure: Figure, path: Path) -> None:
    """Writes the figure in the format of the suffix; the same bytes for the same data.

    Its layout is then settled: another round would move things by a hair.
    """
    with style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def title(job: JobHistory, what: str) -> str:
    """What every picture says on top: what it shows, of which run and task."""
    return f"{what} · run {job.run.id} on {job.task}"


def iteration_axis(axes: Axes, job: JobHistory) -> None:
    """Iterations from left to right."""
    counted_axis(axes, "iteration", len(job.iterations))


def counted_axis(axes: Axes, name: str, last: int, *, first: int = 1) -> None:
    """What is counted, from left to right, as whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(name)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(axis="x", length=0)


class Label(NamedTuple):
    """A text beside a line, at its height."""

    height: float
    text: str
    colour: str


def label_right(axes: Axes, labels: Sequence[Label], *, size: float = 8) -> None:
    """Texts beside the right edge, as near to their heights as there is room for all."""
    low, high = axes.get_ylim()
    points = axes.get_window_extent().height * 72 / axes.figure.dpi
    # Lines are 1.25 em high; a third of a line sets neighbours apart.
    room = [(1.25 * (1 + label.text.count("\n")) + 0.4) * size for label in labels]
    sizes = np.array(room) * (high - low) / points
    heights = spread([label.height for label in labels], sizes, low, high)
    for height, label in zip(heights, labels, strict=True):
        axes.annotate(
            label.text,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=_readable(label.colour),
            fontsize=size,
            annotation_clip=False,
        )


def _readable(colour: str) -> tuple[float, ...]:
    """Dark enough for a text on white."""
    from matplotlib.colors import to_rgb

    return tuple(0.75 * part for part in to_rgb(colour))


def spread(heights: Sequence[float], sizes: Array, low: float, high: float) -> Array:
    """Middles of things of these sizes, moved as little as it takes for none to overlap.

    They keep their order and stay in [low, high] where there is room for all.
    """
    order = np.argsort(heights, kind="stable")
    size = np.asarray(sizes, dtype=np.float64)[order]
    above = np.concatenate([[0.0], np.cumsum((size[1:] + size[:-1]) / 2)])
    # Less what is between them they need only be in order: pool adjacent violators.
    groups: list[tuple[float, int]] = []
    for value in np.asarray(heights, dtype=np.float64)[order] - above:
        mean, count = float(value), 1
        while groups and groups[-1][0] >= mean:
            earlier, number = groups.pop()
            mean, count = (mean * count + earlier * number) / (count + number), count + number
        groups.append((mean, count))
    placed = np.repeat([mean for mean, _ in groups], [count for _, count in groups])
    top = high - size[-1] / 2 - above[-1]
    moved = np.empty(len(order))
    moved[order] = np.clip(placed, min(low + size[0] / 2, top), top) + above
    return moved
