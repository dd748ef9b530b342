"""Jobs as pictures: `plot_…` functions of a `JobHistory` that return matplotlib figures.

To add one, write its file and name its function here and in `PLOTS`.
"""

from __future__ import annotations

from swarm.plots.calls import plot_calls
from swarm.plots.coefficients import plot_coefficients, plot_coefficients_by_iteration
from swarm.plots.contribution import plot_contribution, plot_places
from swarm.plots.convergence import plot_convergence
from swarm.plots.graphs import plot_graphs
from swarm.plots.positions import plot_positions

__all__ = [
    "PLOTS",
    "plot_calls",
    "plot_coefficients",
    "plot_coefficients_by_iteration",
    "plot_contribution",
    "plot_convergence",
    "plot_graphs",
    "plot_places",
    "plot_positions",
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
"""By the name of the file that `swarm plot` writes."""
