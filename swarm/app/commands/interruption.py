"""Ctrl-C: what is kept of a run, and the command that goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import typer

from swarm.app.commands.exit_codes import INTERRUPTED
from swarm.app.settings import Chosen
from swarm.app.terminal import say
from swarm.errors import SwarmError


@contextmanager
def resumable(chosen: Chosen, *words: str, as_json: bool) -> Iterator[None]:
    """On Ctrl-C, says what has been kept and how to go on."""
    started = datetime.now(UTC)
    try:
        yield
    except KeyboardInterrupt:
        from swarm.app.documents import print_json

        run = _left_since(chosen.value("store"), started)
        command = chosen.command(*words)
        if as_json:
            print_json({"status": "interrupted", "run": run, "go_on": command})
        kept = (
            "nothing was recorded" if run is None else f"all answers so far are kept in run {run}"
        )
        say(f"\ninterrupted: {kept}; go on with:\n  {command}")
        raise typer.Exit(INTERRUPTED) from None


def _left_since(url: str, started: datetime) -> int | None:
    """The run that this process has just left."""
    from swarm.store import Store

    try:
        with Store.open(url, create=False) as store:
            left = [
                run
                for run in store.runs(100)
                if run.status == "interrupted" and run.updated_at >= started
            ]
    except SwarmError:
        return None
    return max(left, key=lambda run: run.updated_at).id if left else None
