"""`swarm plot`: pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.app.commands.options import DebugOption, JsonOption, RunArgument, StoreOption
from swarm.app.settings import choose


def plot(
    context: typer.Context,
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", envvar="SWARM_OUT", metavar="DIR", help="Where they go."),
    ] = Path("plots"),
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a run: its batches over time, and a job's way.

    Every picture that the run has data for is written as PNG and SVG into DIR: timeline; of jobs
    also learning, or convergence, swarm, graphs, contribution, places, calls, coefficients,
    coefficients_by_iteration.

    \b
    Example:
      swarm plot 3 -o plots
    """
    from swarm.app import documents
    from swarm.app.plot import draw
    from swarm.app.terminal import console

    drawn = draw(choose(context, ["store"]).value("store"), run, out)
    if json_:
        documents.print_json(drawn.document())
    else:
        drawn.show(console())
