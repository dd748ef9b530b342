"""`swarm optimize`: the search for the best system."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
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
from swarm.errors import InputError


def optimize(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="job.toml, or job.py with job, pool and task.")
    ],
    pool: PoolOption = None,
    task: TaskOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", envvar="SWARM_SET", metavar="KEY=VALUE", help="A setting of the optimizer."
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="As published: every call of every evaluation, one after another."
        ),
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Every evaluation whole, none remembered.")
    ] = False,
    racing: Annotated[
        bool,
        typer.Option("--racing", help="Lossy: stop on graphs that are worse at 95 % confidence."),
    ] = False,
    max_calls: Annotated[
        int | None,
        typer.Option(envvar="SWARM_MAX_CALLS", metavar="N", help="Stop before more calls."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(envvar="SWARM_MAX_TOKENS", metavar="N", help="Stop before more tokens."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(envvar="SWARM_MAX_COST", metavar="USD", help="Stop before it costs more."),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(envvar="SWARM_MAX_SECONDS", metavar="S", help="Stop after so long."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it will take; load no model.")
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With --dry-run: estimate it from N questions."),
    ] = None,
    sweep: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="N jobs, with hyperparameters from the paper."),
    ] = None,
    memory: MemoryOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Search for the best graph of a pool for a task.

    job.toml has the keys optimizer, pool, task, split, limit, store, and a table [settings] for the
    optimizer; job.py defines job, pool and task. Ctrl-C saves, and the same command goes on.

    Limits (--max-…, or keys such as max_calls) count all that the job has used since it began. One
    that is reached stops it; with a higher one it goes on there. In a sweep every job has them to
    itself, and what --set gives is the same in all.

    \b
    Example:
      swarm optimize job.toml --dry-run --sample 20
      swarm optimize job.toml --set particles=20 --max-cost 5
      swarm optimize job.toml --sweep 10
    """
    from swarm.app.doctor import require_engines
    from swarm.app.jobs import load_job

    if sample is not None and not dry_run:
        raise InputError("`--sample` is for `--dry-run`: give both, or leave it out")
    flags = {"--reference": reference, "--exact": exact, "--racing": racing}
    given = [flag for flag, is_given in flags.items() if is_given]
    job = load_job(context, file, given)
    words = ["optimize", str(file), *given] + (["--sweep", str(sweep)] if sweep else [])
    from swarm.app import documents, optimize, parts, results
    from swarm.app.terminal import console
    from swarm.runtime.progress import default_progress

    if sweep is not None:
        optimize.check_sweep(job, sweep)
    if sample is not None or not dry_run:
        require_engines(job.pool.values())
    if dry_run:
        foreseen = optimize.foresee(job, sweep or 1, sample)
        if json_:
            documents.print_json(foreseen.document())
        else:
            results.foreseen(console(), foreseen)
        return
    with resumable(job.chosen, *words, as_json=json_):
        started = datetime.now(UTC)
        found: optimize.Found | optimize.Table
        if sweep is not None:
            found = optimize.run_sweep(job, sweep, default_progress(quiet=quiet), words)
        else:
            found = optimize.run(job, default_progress(quiet=quiet), words)
        if json_:
            documents.print_json(found.document())
            return
        out = console()
        if isinstance(found, optimize.Table):
            results.sweep(out, found.jobs)
            runs = [swept.run for swept in found.jobs]
        else:
            known = found.run.status == "done" and found.run.updated_at < started
            results.found(out, found.system, found.run, known=known)
            runs = [found.run]
        if found.go_on is not None:
            results.go_on(out, runs, found.go_on)
        parts.look_further(out, runs[0], job.chosen.store_flag())
