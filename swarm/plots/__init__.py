"""Runs as pictures: `plot_…` functions that return matplotlib figures, most of a `JobHistory`.

To add one, write its file and name its function here and in `PLOTS` (or `RUN_PLOTS`).
"""

from __future__ import annotations

from swarm.plots.calls import plot_calls
from swarm.plots.coefficients import plot_coefficients, plot_coefficients_by_iteration
from swarm.plots.contribution import plot_contribution, plot_places
from swarm.plots.convergence import plot_convergence
from swarm.plots.graphs import plot_graphs
from swarm.plots.learning import plot_learning
from swarm.plots.positions import plot_positions
from swarm.plots.timeline import plot_timeline

__all__ = [
    "PLOTS",
    "RUN_PLOTS",
    "plot_calls",
    "plot_coefficients",
    "plot_coefficients_by_iteration",
    "plot_contribution",
    "plot_convergence",
    "plot_graphs",
    "plot_learning",
    "plot_places",
    "plot_positions",
    "plot_timeline",
]

PLOTS = {
    "convergence": plot_convergence,
    "swarm": plot_positions,
    "graphs": plot_graphs,
    "contribution": plot_contribution,
    "places": plot_places,
    "calls": plot_calls,
    "coefficients": plot_coefficients,
    "coefficients_by_iteration": plot_coefficients_by_iteration,
}
"""Of jobs, by the name of the file that `swarm plot` writes."""

RUN_PLOTS = {"timeline": plot_timeline, "learning": plot_learning}
"""Of any run and its batches."""
