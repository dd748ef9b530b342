"""What accuracy costs: routers along their trade-offs, and the experts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from swarm.analysis.routing import Point, aiq, hull
from swarm.optimizers.outcomes import Floats
from swarm.plots.style import FAINT, INK, PALETTE, Label, label_right, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = len(PALETTE)
"""Routers that have a colour: the best ones."""


def plot_routers(
    fronts: Mapping[str, Sequence[Point]], singles: Mapping[str, Point], *, title: str
) -> Figure:
    """Cost from left to right, on a logarithmic scale, accuracy upwards.

    Lines are the hulls of the seven routers of the highest AIQ, which stands beside their names;
    grey dots the experts alone, the grey line the oracle. Where nothing costs anything, a bar a
    router.
    """
    known = {name: hull(points) for name, points in fronts.items() if points}
    oracle = known.pop("oracle", None)
    costs = [point.cost for point in singles.values()]
    worth = {name: aiq(fronts[name], min(costs), max(costs)) for name in known}
    best = sorted(known, key=lambda name: -worth[name])[:DRAWN]
    with style():
        figure = new_figure(height=4.2)
        axes = figure.subplots()
        axes.set_title(title)
        axes.grid(axis="y" if any(costs) else "x")
        if not any(costs):
            names = [*best[::-1], *(["oracle"] if oracle is not None else [])]
            heights = [known[name][-1, 1] for name in best[::-1]]
            heights += [oracle[-1, 1]] if oracle is not None else []
            bars = axes.barh(names, heights, color=[PALETTE[0]] * len(best) + [FAINT], height=0.6)
            low, high = min(heights), max(heights)
            axes.set_xlim(max(0.0, low - 0.3 * (high - low) - 0.02), high)
            axes.bar_label(bars, fmt="%.3f", padding=4, color=INK, fontsize=8)
            axes.set_xlabel("accuracy")
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            return figure
        labels = []
        for colour, name in zip(PALETTE, best, strict=False):
            corners = known[name]
            axes.plot(*_line(corners), color=colour, linewidth=1.5)
            axes.plot(*corners.T, color=colour, linewidth=0, marker="o", markersize=3)
            # Most end alike: then the best is named first.
            height = round(float(corners[-1, 1]), 2) + 1e-4 * worth[name]
            labels.append(Label(height, f"{name}  {worth[name]:.3f}", colour))
        if oracle is not None:
            axes.plot(*_line(oracle), color=FAINT, linewidth=1.2, linestyle=":")
            area = aiq(fronts["oracle"], min(costs), max(costs))
            labels.append(Label(float(oracle[-1, 1]), f"oracle  {area:.3f}", FAINT))
        scores = [point.score for point in singles.values()]
        axes.scatter(costs, scores, s=14, color=FAINT, zorder=1)
        if min(costs) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:g}")
        axes.set_xlabel("USD per 1 000 questions; grey dots: experts alone; figures: AIQ")
        axes.set_ylabel("accuracy")
        label_right(axes, labels)
        return figure


def _line(corners: Floats) -> tuple[Floats, Floats]:
    """What lies between corners: straight in USD, so bent where the scale is logarithmic."""
    low, high = corners[0, 0], corners[-1, 0]
    even = np.linspace(low, high, 200) if low <= 0 else np.geomspace(low, high, 200)
    costs = np.unique(np.concatenate([even, corners[:, 0]]))
    return costs, np.interp(costs, corners[:, 0], corners[:, 1])
