"""`swarm routers`: routers compared on a recorded pool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.app.commands.options import DebugOption, JsonOption, StoreOption
from swarm.app.settings import choose


def routers(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Recordings: a folder, or .jsonl(.gz) files."),
    ],
    router: Annotated[
        list[str] | None,
        typer.Option(envvar="SWARM_ROUTER", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    seed: Annotated[
        int, typer.Option(envvar="SWARM_SEED", metavar="N", min=0, help="How questions are parted.")
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw cost against accuracy: .png, .svg or .pdf."),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BENCHMARK=N", help="Its highest score, where not 1; may be repeated."
        ),
    ] = None,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare routers on a recorded pool: accuracy and cost of each.

    Routers are fitted on 70 % of the questions of each benchmark and judged by the others.
    Questions are embedded once and kept in the store.

    \b
    Example:
      swarm routers recordings/ --plot routers.svg
      swarm routers recordings/ --router knn --router blend
    """
    from swarm.app import documents
    from swarm.app.routers import check_plot, draw, judge, read_scale
    from swarm.app.terminal import console

    if plot is not None:
        check_plot(plot)
    url = choose(context, ["store"]).value("store")
    highest = read_scale(scale or ())
    table = judge(paths, routers=router or (), seed=seed, store=url, scale=highest)
    if plot is not None:
        draw(table, plot)
    if json_:
        documents.print_json(table.document())
    else:
        table.show(console())
