"""`swarm runs`: what is in the store."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.app.commands.options import DebugOption, JsonOption, StoreOption
from swarm.app.settings import choose


def runs(
    context: typer.Context,
    last: Annotated[
        int, typer.Option(envvar="SWARM_LAST", metavar="N", min=1, help="Only the last N.")
    ] = 20,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the latest runs, the newest first.

    \b
    Example:
      swarm runs --last 5 --store sqlite:///swarm.db
    """
    from swarm.app import documents, show
    from swarm.app.page import status
    from swarm.app.terminal import console
    from swarm.store import Store

    with Store.open(choose(context, ["store"]).value("store"), create=False) as opened:
        found = [(run, status(opened, run)) for run in opened.runs(last)]
    if json_:
        documents.print_json(
            [{**documents.run_document(run), "status": status} for run, status in found]
        )
    else:
        show.runs(console(), found)
