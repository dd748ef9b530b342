"""`swarm doctor`: what works here."""

from __future__ import annotations

import typer

from swarm.app.commands.exit_codes import FAILED
from swarm.app.commands.options import DebugOption, JsonOption, StoreOption
from swarm.app.settings import choose


def doctor(
    context: typer.Context,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what works here, what does not, and why.

    The exit code is 1 if runs can't be recorded.

    \b
    Example:
      swarm doctor --json
    """
    from swarm.app import doctor as examine
    from swarm.app import documents
    from swarm.app.terminal import console

    diagnosis = examine.diagnose(choose(context, ["store"]).value("store"))
    if json_:
        documents.print_json(diagnosis.document())
    else:
        examine.show(console(), diagnosis)
    if not diagnosis.well:
        raise typer.Exit(FAILED)
