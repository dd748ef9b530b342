"""`swarm run`: a graph or policy asked, or scored on a task."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.app.commands.interruption import resumable
from swarm.app.commands.options import (
    DebugOption,
    JsonOption,
    LimitOption,
    MemoryOption,
    PoolOption,
    QuietOption,
    SplitOption,
    StoreOption,
    TaskOption,
)
from swarm.app.settings import DEFAULTS, choose


def run(
    context: typer.Context,
    graph: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH", help="A JSON file, the id of a run, a topology, or a policy's folder."
        ),
    ],
    pool: PoolOption = None,
    question: Annotated[
        str | None,
        typer.Option(envvar="SWARM_QUESTION", metavar="TEXT", help="Ask this."),
    ] = None,
    task: TaskOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    name: Annotated[
        str | None, typer.Option(envvar="SWARM_NAME", metavar="TEXT", help="What to call the run.")
    ] = None,
    memory: MemoryOption = None,
    drop: Annotated[
        bool,
        typer.Option("--drop", help="Go on without experts of a policy that the pool lacks."),
    ] = False,
    store: StoreOption = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show each agent's response, or the graph.")
    ] = False,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask a graph one question, or score it on a task.

    GRAPH is a JSON file, the id of a run (its best graph, or its policy, with its pool if --pool is
    not given), a folder that swarm export wrote or a policy was saved to, or a topology: single:a,
    chain:a,b,c, star:a,b,c, tree:…, complete:…, debate:a,b,judge,rounds=2.
    With --task the run is recorded; the split is test if --split is not given.

    each scores every expert of the pool alone (each:a,b: these), all in one run, which
    swarm export RUN --pool makes a router's training data of.

    \b
    Example:
      swarm run chain:times,minus --pool pool.toml --question "a times 3 4 ?"
      swarm run 3 --task task.toml --limit 100
      swarm run each --pool pool.toml --task task.toml --split dev
    """
    from swarm.app.run import Asked, ScoredEach, load_run

    defaults = {**DEFAULTS, "split": "test"}
    chosen = choose(
        context,
        ("pool", "question", "task", "split", "limit", "name", "memory", "store"),
        defaults=defaults,
    )
    wanted = load_run(graph, chosen, drop=drop)
    with resumable(chosen, "run", graph, as_json=json_):
        from swarm.app import documents, parts, results
        from swarm.app.terminal import console

        done = wanted.go(quiet=quiet)
        if json_:
            documents.print_json(done.document())
        elif isinstance(done, Asked):
            results.answer(console(), done.trace, verbose=verbose)
        elif isinstance(done, ScoredEach):
            results.each(console(), done, chosen.store_flag())
        else:
            out = console()
            results.result(out, done, verbose=verbose)
            parts.look_further(out, done.run, chosen.store_flag(), done.lowest)
        if not isinstance(done, Asked):
            done.refuse_if_all_failed()
