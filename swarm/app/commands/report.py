"""`swarm report`: analyses of runs."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.app.commands.options import (
    DebugOption,
    JsonOption,
    PoolOption,
    QuietOption,
    StoreOption,
    TaskOption,
)
from swarm.app.settings import LAST_RUN, choose


def report(
    context: typer.Context,
    runs: Annotated[
        list[int],
        typer.Argument(metavar="RUN...", min=1, max=LAST_RUN, help="The ids of runs."),
    ],
    task: TaskOption = None,
    pool: PoolOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Analyse runs: collaborative gain, roles, contributions.

    Collaborative gain needs each expert's scores alone. What the store lacks of them is asked only
    if --pool is given, and recorded as a run. Several jobs are also compared by their pools.

    \b
    Example:
      swarm report 3
      swarm report 3 4 5 --json
    """
    from swarm.app import documents
    from swarm.app.report import make_report
    from swarm.app.terminal import console

    chosen = choose(context, ["task", "pool", "store"])
    report = make_report(runs, chosen, quiet=quiet)
    if json_:
        documents.print_json(report.document())
    else:
        report.show(console())
