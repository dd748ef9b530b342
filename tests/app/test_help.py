"""Help: every command has it, with an example and the options all commands have."""

from __future__ import annotations

import re

import pytest
import typer

from swarm.app.cli import app

from .conftest import Cli

COMMANDS = (
    *("run", "optimize", "runs", "show", "replay", "export", "doctor", "plot", "routers"),
    "report",
)


def test_commands(cli: Cli) -> None:
    code, out, err = cli()
    assert (code, err) == (0, "")
    assert cli("--help").out == out
    summaries = out.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)  ", summaries, re.MULTILINE) == [*COMMANDS, "pool"]
    assert "..." not in summaries, "one is cut off"
    assert cli("--version").out.startswith("swarm 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_command(cli: Cli, command: str) -> None:
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, "")
    assert f"Example:\n    swarm {command}" in out
    for option in ("--store URL", "--json", "--debug"):
        assert option in out


def test_every_option_has_its_variable() -> None:
    group = typer.main.get_command(app)
    for command in COMMANDS:
        for option in group.commands[command].params:  # type: ignore[attr-defined]
            if option.envvar is not None:
                name = option.opts[0].lstrip("-").replace("-", "_")
                assert option.envvar == f"SWARM_{name.upper()}"
