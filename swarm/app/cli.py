"""The command line. What a command needs is imported in it: help must not wait for it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from swarm.app.commands import pool
from swarm.app.commands.bare import BarePool
from swarm.app.commands.doctor import doctor
from swarm.app.commands.exit_codes import BAD_INPUT, FAILED, INTERRUPTED
from swarm.app.commands.export import export
from swarm.app.commands.optimize import optimize
from swarm.app.commands.plot import plot
from swarm.app.commands.replay import replay
from swarm.app.commands.report import report
from swarm.app.commands.routers import routers
from swarm.app.commands.run import run
from swarm.app.commands.runs import runs
from swarm.app.commands.show import show
from swarm.app.terminal import one_line, say
from swarm.errors import InputError, SwarmError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Multi-LLM systems as graphs of agents: searched, run, recorded, replayed.

    Options can also be given as environment variables: --pool as SWARM_POOL, and so on.

    \b
    Example:
      swarm optimize job.toml
      swarm show 1
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"swarm {installed('agent-swarm')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


# Help lists them in this order.
app.command()(run)
app.command()(optimize)
app.command()(runs)
app.command()(show)
app.command()(replay)
app.command(cls=BarePool)(export)
app.command()(doctor)
app.command()(plot)
app.command()(routers)
app.command()(report)
app.add_typer(pool.app, name="pool")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the command `swarm`."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a stream can't show must not end the command
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_main(arguments))


def _main(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments or os.environ.get("SWARM_DEBUG", "0") != "0"
    # click's exceptions are typer's own in newer versions: this is `ClickException` in either.
    refused: type[Exception] = typer.BadParameter.__mro__[2]
    command = typer.main.get_command(app)
    try:
        code = command.main(list(arguments), prog_name="swarm", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except refused as error:
        return _fail(str(error.format_message()), BAD_INPUT, debug)  # type: ignore[attr-defined]
    except InputError as error:
        return _fail(str(error), BAD_INPUT, debug)
    except SwarmError as error:
        return _fail(str(error), FAILED, debug)
    except Exception as error:
        remedy = "this is a defect: --debug shows where"
        return _fail(f"{type(error).__name__}: {error} ({remedy})", FAILED, debug)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    say(f"error: {one_line(message)}")
    return code
