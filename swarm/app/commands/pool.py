"""`swarm pool …`: the servers of a pool file, and a look at its experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.app.commands.exit_codes import FAILED
from swarm.app.commands.options import DebugOption, JsonOption, QuietOption

app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})

FileArgument = Annotated[Path, typer.Argument(metavar="POOL.toml", help="The pool file.")]


@app.callback()
def _pool() -> None:
    """Start, see and stop a pool's servers; ask its experts."""


@app.command()
def up(
    file: FileArgument,
    foreground: Annotated[
        bool,
        typer.Option("--foreground", "-f", help="Stay until Ctrl-C, and stop the servers then."),
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Start the servers of a pool file, and wait until all answer.

    One server a [[servers]] table, with the adapters of all experts that it serves. They listen on
    127.0.0.1 only. One that dies is started again. If one can't be started, all are stopped.

    \b
    Example:
      swarm pool up pool.toml
      swarm run chain:a,b --pool pool.toml --question "…"
      swarm pool down pool.toml
    """
    from swarm.app import documents
    from swarm.app.pool_servers import bring_up, show
    from swarm.app.terminal import console

    with bring_up(file, quiet=quiet) as upped:
        if json_:
            documents.print_json(upped.document())
        else:
            show(console(), upped)
        if not foreground or not upped.started:
            upped.leave()
        else:
            upped.stay(quiet=quiet or json_)


@app.command()
def status(
    file: FileArgument,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say how the servers of a pool file stand.

    The exit code is 1 unless all are healthy.

    \b
    Example:
      swarm pool status pool.toml --json
    """
    from swarm.app import documents
    from swarm.app.pool_servers import look, show
    from swarm.app.terminal import console

    looked = look(file)
    if json_:
        documents.print_json(looked.document())
    else:
        show(console(), looked)
    if not looked.healthy:
        raise typer.Exit(FAILED)


@app.command()
def down(
    file: FileArgument,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Stop the servers of a pool file.

    They are asked to end, and killed if they do not. It is no error if none are up.

    \b
    Example:
      swarm pool down pool.toml
    """
    from swarm.app import documents
    from swarm.app.pool_servers import take_down
    from swarm.app.terminal import console

    ended = take_down(file)
    if json_:
        documents.print_json(ended.document())
    else:
        console().print(ended.told)


@app.command()
def check(
    file: FileArgument,
    experts: Annotated[
        list[str] | None,
        typer.Option("--expert", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(envvar="SWARM_QUESTION", metavar="TEXT", help="What to ask."),
    ] = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask every expert of a pool the same, twice.

    Whether it answers and how fast, at what price, and whether both answers are the same.

    Hosted and served experts are asked side by side, local models one after the other. The exit
    code is 1 if one fails.

    \b
    Example:
      swarm pool check pool.toml
      swarm pool check pool.toml --expert writer --question "What is 2 plus 3?"
    """
    from swarm.app import documents
    from swarm.app.pool_check import DEFAULT_QUESTION, check_pool, show
    from swarm.app.terminal import console

    checked = check_pool(file, experts or (), question or DEFAULT_QUESTION, quiet=quiet)
    if json_:
        documents.print_json(checked.document())
    else:
        show(console(), checked)
    if not checked.well:
        raise typer.Exit(FAILED)
