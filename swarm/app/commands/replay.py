"""`swarm replay`: a run again from its record alone."""

from __future__ import annotations

import typer

from swarm.app.commands.options import (
    DebugOption,
    JsonOption,
    QuietOption,
    RunArgument,
    StoreOption,
    TaskOption,
)
from swarm.app.settings import choose
from swarm.errors import DivergenceError


def replay(
    context: typer.Context,
    run: RunArgument,
    task: TaskOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check that a run comes out as it was recorded.

    It is run again from its recorded responses alone: no model is loaded. Every prompt is built and
    every answer scored anew, and the first that does not come out as recorded is named; the exit
    code is then 1. The task is --task, or the one the run was made with if it is still there.

    \b
    Example:
      swarm replay 3
    """
    from dataclasses import asdict, replace

    from swarm.app import documents, results
    from swarm.app.jobs import task_of
    from swarm.app.terminal import console
    from swarm.replay import replay
    from swarm.runtime.progress import default_progress
    from swarm.store import Store

    chosen = choose(context, ["task", "store"])
    with Store.open(chosen.value("store"), create=False) as opened:
        scored_by, why_not = task_of(opened.run(run), chosen.value("task"))
        try:
            report = replay(opened, run, task=scored_by, progress=default_progress(quiet=quiet))
        except DivergenceError as error:
            if json_:
                documents.print_json(documents.divergence_document(run, error))
            raise
    report = replace(report, notes=(*report.notes, *why_not))
    if json_:
        documents.print_json({"same": True, **asdict(report)})
    else:
        results.report(console(), report)
