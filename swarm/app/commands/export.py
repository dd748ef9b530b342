"""`swarm export`: what a run found, as a folder, or its answers as a recorded pool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.app.commands.bare import BARE
from swarm.app.commands.options import DebugOption, JsonOption, StoreOption, TaskOption
from swarm.app.settings import FLAG, choose
from swarm.errors import InputError


def export(
    context: typer.Context,
    graph: Annotated[
        str,
        typer.Argument(metavar="GRAPH", help="The id of a run, a JSON file, or a topology."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PATH", help="A new folder, or with a bare --pool a new file."
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            envvar="SWARM_POOL",
            metavar="[POOL.toml]",
            help="The experts of the system; bare: export the run's answers as a recorded pool.",
        ),
    ] = None,
    task: TaskOption = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="With a bare --pool: what other runs hold of its questions."),
    ] = False,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write what a run found: its system, or its answers.

    A system is its graph or policy, its pool, and the weights it moved, as ordinary adapter or
    model folders.

    With a bare --pool, what is written is what every expert that was asked alone answered to the
    run's questions: scores, answers, texts, tokens, and costs by the experts' prices. Routers
    learn from such a recorded pool. swarm run each … asks all experts of a pool alone. Answers
    and choices are read by the task: --task, or the one the run was made with.

    \b
    Example:
      swarm export 3 -o found
      swarm run found --question "a times 3 4 ?"
      swarm export 4 --pool -o mine.jsonl.gz
    """
    from swarm.app import documents
    from swarm.app.terminal import console

    if pool == BARE:
        from swarm.app.alone import export_alone

        chosen = choose(context, ["task", "store"])
        written = export_alone(graph, chosen, out, everywhere=all_)
        if json_:
            documents.print_json(written.document())
        else:
            written.show(console())
        return
    from swarm.app.run import graph_and_pool
    from swarm.runtime.export import export as write
    from swarm.runtime.system import System

    by_flag = choose(context, ["task"]).get("task")
    if all_ or (by_flag is not None and by_flag.origin == FLAG):
        raise InputError("`--all` and `--task` are for a recorded pool: add a bare `--pool`")
    if out is None:
        raise InputError("`--out` is missing: give a new folder to write the system to")
    chosen = choose(context, ["pool", "store"])
    found, experts, _ = graph_and_pool(graph, chosen)
    write(System(found, experts), out)
    command = f"swarm run {out} --question …"
    if json_:
        documents.print_json({"folder": str(out.resolve())})
    else:
        console().print(f"written to {out}; ask it with\n  {command}", markup=False)
