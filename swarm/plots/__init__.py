"""Figures of runs as pictures: `plot_…` functions that return matplotlib figures."""
