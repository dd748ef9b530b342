"""`swarm show`: a run, a trace of it, or its batches."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.app.commands.options import DebugOption, JsonOption, RunArgument, StoreOption
from swarm.app.settings import LAST_RUN, choose
from swarm.errors import InputError


def show(
    context: typer.Context,
    run: RunArgument,
    trace: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=LAST_RUN, help="One question, call by call."),
    ] = None,
    batches: Annotated[
        bool, typer.Option("--batches", help="Every engine call that was made for the run.")
    ] = False,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a run, or one trace of it call by call.

    \b
    Example:
      swarm show 3
      swarm show 3 --trace 0
    """
    from swarm.app import documents, show
    from swarm.app.page import look
    from swarm.app.terminal import console
    from swarm.runtime.routing import calls_about
    from swarm.store import Store

    if trace is not None and batches:
        raise InputError("`--trace` and `--batches` exclude each other: give one of them")
    chosen = choose(context, ["store"])
    with Store.open(chosen.value("store"), create=False) as opened:
        if trace is not None:
            one = opened.trace(run, trace)
            asked = calls_about(opened, one)
            if json_:
                documents.print_json(documents.trace_document(one, asked))
            else:
                show.trace(console(), one, asked)
        elif batches:
            made = opened.batches(run)
            if json_:
                documents.print_json(documents.batches_document(made))
            else:
                show.batches(console(), made)
        else:
            page = look(opened, run)
            if json_:
                documents.print_json(documents.page_document(page))
            else:
                show.page(console(), page, chosen.store_flag())
