"""The swarm in two dimensions: positions of all iterations, projected to where they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swarm.analysis.contribution import jfk_by_iteration
from swarm.analysis.job import JobHistory
from swarm.errors import InputError
from swarm.optimizers.searchers.base import Array
from swarm.plots.style import FAINT, INK, VERMILLION, WIDTH, new_figure, style, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Projection(NamedTuple):
    """Positions in the plane of their first two principal components."""

    points: Array
    """Shape (T, N, 2): iteration, particle."""
    explained: Array
    """Shape (2,): the share of all variance along each."""


def project(positions: Array) -> Projection:
    """Principal components of positions of shape (T, N, ...), by singular value decomposition."""
    flat = positions.reshape(-1, int(np.prod(positions.shape[2:])))
    centred = flat - flat.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((2, flat.shape[1]))
    plane[: len(directions)] = directions[:2]
    variance = np.zeros(2)
    variance[: len(sizes)] = sizes[:2] ** 2
    total = float((sizes**2).sum())
    points = (centred @ plane.T).reshape(*positions.shape[:2], 2)
    return Projection(points, variance / total if total > 0 else variance)


def plot_positions(job: JobHistory) -> Figure:
    """Where the particles went: graphs' matrices (role-step) and, in a panel of its own, experts'
    weights as coefficients (weight-step).

    Each line is a particle's path from its first position (ring) to its last (disc); colours are
    scores, the star is the best. Paths are left out for searches whose positions do not move.

    Raises:
        InputError: no iteration has positions.
    """
    roles = [iteration.role for iteration in job.iterations if iteration.role is not None]
    weights = [iteration.weight for iteration in job.iterations if iteration.weight is not None]
    if not roles and not weights:
        raise InputError(f"run {job.run.id} has no positions to show")
    with style():
        panels = bool(roles) + bool(weights)
        figure = new_figure(WIDTH if panels > 1 else 4.8, 3.9 if panels > 1 else 4.2)
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        figure.suptitle(title(job, "The swarm in two dimensions"), x=0.01, ha="left")
        if roles:
            _panel(
                axes[0],
                np.stack([role.positions for role in roles]),
                np.stack([role.scores for role in roles]),
                moving=job.run.settings.get("search", "pso") == "pso",
                names=(),
                label=f"score on {job.split}",
                heading="role-step: adjacency matrices",
            )
        if weights:
            _panel(
                axes[-1],
                np.stack([weight.coefficients for weight in weights]),
                jfk_by_iteration(job)[[i for i, each in enumerate(job.iterations) if each.weight]],
                moving=True,
                names=job.experts,
                label="JFK-score",
                heading="weight-step: experts' coefficients",
            )
        return figure


def _panel(
    axes: Axes,
    positions: Array,
    scores: Array,
    *,
    moving: bool,
    names: Sequence[str],
    label: str,
    heading: str,
) -> None:
    points, explained = project(positions)
    first, last, everywhere = points[0], points[-1], points.reshape(-1, 2)
    if moving:
        for path in points.swapaxes(0, 1):
            axes.plot(path[:, 0], path[:, 1], color=FAINT, linewidth=0.6, alpha=0.55, zorder=1)
        axes.scatter(
            first[:, 0], first[:, 1], 34, facecolor="none", edgecolor=FAINT, linewidth=0.9, zorder=2
        )
    shown = axes.scatter(
        everywhere[:, 0],
        everywhere[:, 1],
        12,
        scores.ravel(),
        cmap="viridis",
        linewidth=0,
        zorder=3,
    )
    if moving:
        low, high = shown.get_clim()
        axes.scatter(
            last[:, 0],
            last[:, 1],
            34,
            scores[-1],
            cmap="viridis",
            vmin=low,
            vmax=high,
            edgecolor=INK,
            linewidth=0.8,
            zorder=4,
        )
    x, y = everywhere[int(np.nanargmax(scores))]
    axes.scatter(
        x, y, 150, marker="*", facecolor=VERMILLION, edgecolor="white", linewidth=0.8, zorder=5
    )
    for name, start in zip(names, first if names else (), strict=True):
        axes.annotate(
            name, start, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7
        )
    marks = "○ first   ● last   ★ best" if moving else "★ best"
    axes.set_title(f"{heading}\n{marks}", fontsize=8, fontweight="normal", linespacing=1.4, pad=4)
    axes.set_xlabel(f"first component ({explained[0]:.0%} of variance)")
    axes.set_ylabel(f"second ({explained[1]:.0%})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    axes.tick_params(labelsize=7, length=2)
    bar = axes.figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, aspect=30, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
