"""What `import swarm` and help must not wait for."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "alembic",
    "langchain_core",
    "langgraph",
    "litellm",
    "networkx",
    "numpy",
    "peft",
    "pydantic",
    "pyswarms",
    "sqlalchemy",
    "torch",
    "transformers",
}

HELP = "from swarm.app.cli import main; main({arguments})"


def imported(code: str) -> set[str]:
    """The modules there are when `code` has run in a process of its own."""
    report = "import atexit, json, sys\n"
    report += "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
    command = [sys.executable, "-c", report + code]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_import() -> None:
    assert not imported("import swarm") & {*HEAVY, "typer", "rich"}


def test_help() -> None:
    assert not imported(HELP.format(arguments=["--help"])) & {*HEAVY, "rich"}


def test_help_of_a_command() -> None:
    # Newer versions of Typer read a command's options by pydantic.
    found = imported(HELP.format(arguments=["optimize", "--help"]))
    assert not found & {*HEAVY, "rich"} - {"pydantic"}
