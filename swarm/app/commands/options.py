"""Options that several commands have, each with its environment variable and its help."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.app.settings import LAST_RUN

StoreOption = Annotated[
    str | None,
    typer.Option(
        envvar="SWARM_STORE",
        metavar="URL",
        help="Where runs are recorded: a file or a database; sqlite:///swarm.db if not given.",
    ),
]
PoolOption = Annotated[
    str | None,
    typer.Option(envvar="SWARM_POOL", metavar="POOL.toml", help="The experts."),
]
TaskOption = Annotated[
    str | None,
    typer.Option(envvar="SWARM_TASK", metavar="TASK.toml", help="Questions and scorer."),
]
SplitOption = Annotated[
    str | None,
    typer.Option(envvar="SWARM_SPLIT", metavar="NAME", help="Which questions of the task."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(envvar="SWARM_LIMIT", metavar="N", min=1, help="Only the first N of them."),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", envvar="SWARM_JSON", help="Print one JSON document on stdout and nothing else."
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        envvar="SWARM_MEMORY",
        metavar="ROOM",
        help="What models may take on a device: 80GiB, or a number of them; else the pool says.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", envvar="SWARM_QUIET", help="Show no progress.")
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", envvar="SWARM_DEBUG", help="Show the traceback of an error, not one line."
    ),
]
RunArgument = Annotated[
    int, typer.Argument(metavar="RUN", min=1, max=LAST_RUN, help="The id of a run.")
]
