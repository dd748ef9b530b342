"""The best graph through the iterations: one small picture each time it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swarm.analysis.job import Change, JobHistory
from swarm.graphs.draw import lay_out, paint
from swarm.plots.style import FAINT, WIDTH, new_figure, style, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 12
"""More pictures than that are thinned out: the first and the last stay."""

_SCALE = 0.5
"""Points a unit of the layout: names come out at 7 points."""
_TITLE, _HEADING, _GAP = 36.0, 22.0, 16.0
"""Points for the title, above each picture, and between pictures."""


def plot_graphs(job: JobHistory) -> Figure:
    """The best graph at the iterations in which a better one was found.

    In a weight-step it is the best cast of that step. Responses flow down, the end node is blue.
    """
    changes = _thinned(job.changes())
    with style():
        layouts = [lay_out(change.graph, "down") for change in changes]
        widths = [max(_SCALE * layout.width, 74.0) for layout in layouts]
        heights = [_SCALE * layout.height for layout in layouts]
        rows = _rows(widths, WIDTH * 72)
        tall = [max(heights[i] for i in row) + _HEADING + _GAP for row in rows]
        wide = max(sum(widths[i] + _GAP for i in row) for row in rows) + _GAP
        wide, high = max(wide, 0.62 * WIDTH * 72), sum(tall) + _TITLE
        figure = new_figure(wide / 72, high / 72)
        figure.set_layout_engine("none")
        what = "Best graphs" if len(changes) == len(job.changes()) else "Some of the best graphs"
        figure.text(
            _GAP / wide, 1 - 8 / high, title(job, what), va="top", weight="bold", fontsize=10
        )
        agents = [agent for change in changes for agent in change.graph.agents]
        if any(agent.expert != agent.name for agent in agents):
            note = "in bold the agent, below it the expert that plays it"
            if any(agent.expert not in job.experts for agent in agents):
                note += " (@2: with its weights after iteration 2)"
            figure.text(_GAP / wide, 1 - 24 / high, note, va="top", fontsize=7, color=FAINT)
        below = _TITLE
        for row, height in zip(rows, tall, strict=True):
            left = _GAP
            for i in row:
                top = below + _HEADING
                across, down = _SCALE * layouts[i].width, heights[i]
                axes = figure.add_axes(
                    (left / wide, 1 - (top + down) / high, across / wide, down / high)
                )
                paint(axes, layouts[i], changes[i].graph.end, scale=_SCALE)
                figure.text(
                    left / wide,
                    1 - (below + 4) / high,
                    f"iteration {changes[i].iteration} · {changes[i].score:.3f}\n"
                    f"{changes[i].step}-step",
                    va="top",
                    fontsize=7,
                )
                left += widths[i] + _GAP
            below += height
        return figure


def _thinned(changes: list[Change]) -> list[Change]:
    kept = np.linspace(0, len(changes) - 1, min(MOST, len(changes))).round().astype(int)
    return [changes[i] for i in kept]


def _rows(widths: list[float], room: float) -> list[list[int]]:
    """Pictures side by side as long as there is room."""
    rows: list[list[int]] = [[]]
    left = room
    for i, width in enumerate(widths):
        if rows[-1] and left < width + _GAP:
            rows.append([])
            left = room
        rows[-1].append(i)
        left -= width + _GAP
    return rows
