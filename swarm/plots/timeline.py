"""What the engines did, base by base over time: batches, and the loads before them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swarm.errors import InputError
from swarm.optimizers.searchers.base import Array
from swarm.plots.style import BLUE, FAINT, INK, ORANGE, RULE, VERMILLION, new_figure, style
from swarm.store import BatchView, RunView
from swarm.store.loads import loads, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAUSE = 0.05
"""Idle time beyond this part of the busy time is cut out: a job may go on after days."""


class _Span(NamedTuple):
    """Something that took time, in seconds from the first thing that happened."""

    row: int
    begin: float
    end: float


def plot_timeline(run: RunView, batches: Sequence[BatchView]) -> Figure:
    """Base against time. Blue: a batch; red: a load, with what was evicted for it, or orange where
    the weights had been read ahead; grey: the base stays loaded, as far as the run can tell.

    Raises:
        InputError: the run asked no engine.
    """
    if not batches:
        raise InputError(f"run {run.id} asked no engine: every answer was known before")
    made = sorted((view.batch for view in batches), key=lambda batch: batch.started_at)
    names = short_names(base for b in made for base in (b.base, *b.evicted))
    rows = {base: row for row, base in enumerate(dict.fromkeys(b.base for b in made))}
    first = min(b.started_at - timedelta(seconds=b.load_seconds) for b in made)
    work, read, fresh, kept = list[_Span](), list[_Span](), list[_Span](), list[_Span]()
    since: dict[str, float] = {}
    for batch in made:
        row, begin = rows[batch.base], (batch.started_at - first).total_seconds()
        loading = begin - batch.load_seconds
        for gone in batch.evicted:
            if gone in since:
                kept.append(_Span(rows[gone], since.pop(gone), loading))
        if batch.load_seconds > 0:
            (read if batch.prefetched else fresh).append(_Span(row, loading, begin))
        if batch.loaded:
            since[batch.base] = begin
        work.append(_Span(row, begin, begin + batch.seconds))
    last = max(span.end for span in work)
    kept += [_Span(rows[base], begin, last) for base, begin in since.items()]
    clock = _Clock([*work, *read, *fresh])
    with style():
        figure = new_figure(height=min(1.5 + 0.24 * len(rows), 14.0))
        axes = figure.subplots()
        for spans, colour, high in (
            (kept, RULE, 0.8),
            (fresh, VERMILLION, 0.8),
            (read, ORANGE, 0.8),
            (work, BLUE, 0.5),
        ):
            _draw(axes, spans, clock, colour, high)
        for cut in clock.cuts:
            axes.axvline(cut, color=FAINT, linewidth=0.8, linestyle=":")
        taken = loads(batches)
        axes.set_yticks(range(len(rows)), [names[base] for base in rows], fontsize=7)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, float(clock(last)))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("seconds" + (", idle time cut out (dotted)" if clock.cuts else ""))
        axes.spines["left"].set_visible(False)
        task = run.settings.get("task")
        axes.set_title(f"Timeline · run {run.id}" + (f" on {task}" if task else ""), pad=24)
        _legend(axes, {"batches": BLUE} | _loading(fresh, read))
        note = f"{taken.batches:,} batches in {taken.seconds:.1f} s"
        if taken.loads:
            note += f", {taken.loads:,} loads in {taken.load_seconds:.1f} s ({taken.share:.0%})"
        axes.annotate(
            note,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 8),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
        return figure


def _loading(fresh: Sequence[_Span], read: Sequence[_Span]) -> dict[str, str]:
    found = {"loads": VERMILLION} if fresh else {}
    return found | ({"loads, read ahead": ORANGE} if read else {})


class _Clock:
    """Seconds of the run to seconds on the axis: long idle time is cut out."""

    def __init__(self, spans: Sequence[_Span]) -> None:
        ends = sorted((span.begin, span.end) for span in spans)
        busy: list[list[float]] = []
        for begin, end in ends:
            if busy and begin <= busy[-1][1]:
                busy[-1][1] = max(busy[-1][1], end)
            else:
                busy.append([begin, end])
        pause = max(PAUSE * sum(end - begin for begin, end in busy), 1e-3)
        self._real, self._shown = [busy[0][0]], [0.0]
        self.cuts: list[float] = []
        """Where on the axis time is missing."""
        for k, (begin, end) in enumerate(busy):
            if k:
                gap = begin - busy[k - 1][1]
                if gap > 2 * pause:
                    self.cuts.append(self._shown[-1] + pause / 2)
                    gap = pause
                self._real.append(begin)
                self._shown.append(self._shown[-1] + gap)
            self._real.append(end)
            self._shown.append(self._shown[-1] + end - begin)

    def __call__(self, seconds: float | Array) -> Array:
        return np.asarray(np.interp(seconds, self._real, self._shown), dtype=np.float64)


def _draw(axes: Axes, spans: Sequence[_Span], clock: _Clock, colour: str, high: float) -> None:
    from matplotlib.collections import PolyCollection

    if not spans:
        return
    row = np.array([span.row for span in spans], dtype=np.float64)
    begin = clock(np.array([span.begin for span in spans]))
    end = clock(np.array([span.end for span in spans]))
    low, top = row - high / 2, row + high / 2
    corners = [[begin, low], [begin, top], [end, top], [end, low]]
    axes.add_collection(
        PolyCollection(
            list(np.array(corners).transpose(2, 0, 1)),
            facecolor=colour,
            edgecolor=colour,
            linewidth=0.3,
        )
    )


def _legend(axes: Axes, colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    axes.legend(
        handles=[Patch(color=colour, label=name) for name, colour in colours.items()]
        + [Patch(color=RULE, label="loaded")],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        fontsize=7,
        handlelength=1,
        columnspacing=1,
        borderaxespad=0.3,
    )
