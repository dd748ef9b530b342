"""The command line. What a command needs is imported in it: help must not wait for it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.app.bare import BARE, BarePool
from swarm.app.pool import app as pool_commands
from swarm.app.settings import DEFAULTS, FLAG, LAST_RUN, Chosen, choose
from swarm.errors import DivergenceError, InputError, SwarmError

if TYPE_CHECKING:
    from swarm.runtime.progress import Progress

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes. Everything went well: 0."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(pool_commands, name="pool")

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


@app.command()
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
    with _resumable(chosen, "run", graph, as_json=json_):
        from swarm.app import documents, show
        from swarm.app.terminal import console

        done = wanted.go(quiet=quiet)
        if json_:
            documents.print_json(done.document())
        elif isinstance(done, Asked):
            show.answer(console(), done.trace, verbose=verbose)
        elif isinstance(done, ScoredEach):
            show.each(console(), done, chosen.store_flag())
        else:
            out = console()
            show.result(out, done, verbose=verbose)
            show.look_further(out, done.run, chosen.store_flag(), done.lowest)
        if not isinstance(done, Asked):
            done.refuse_if_all_failed()


@app.command()
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
    from swarm.app import documents, optimize, show
    from swarm.app.terminal import console

    if sweep is not None:
        optimize.check_sweep(job, sweep)
    if sample is not None or not dry_run:
        require_engines(job.pool.values())
    if dry_run:
        foreseen = optimize.foresee(job, sweep or 1, sample)
        if json_:
            documents.print_json(foreseen.document())
        else:
            show.foreseen(console(), foreseen)
        return
    with _resumable(job.chosen, *words, as_json=json_):
        started = datetime.now(UTC)
        found: optimize.Found | optimize.Table
        if sweep is not None:
            found = optimize.run_sweep(job, sweep, _progress(quiet), words)
        else:
            found = optimize.run(job, _progress(quiet), words)
        if json_:
            documents.print_json(found.document())
            return
        out = console()
        if isinstance(found, optimize.Table):
            show.sweep(out, found.jobs)
            runs = [swept.run for swept in found.jobs]
        else:
            known = found.run.status == "done" and found.run.updated_at < started
            show.found(out, found.system, found.run, known=known)
            runs = [found.run]
        if found.go_on is not None:
            show.go_on(out, runs, found.go_on)
        show.look_further(out, runs[0], job.chosen.store_flag())


@app.command()
def runs(
    context: typer.Context,
    last: Annotated[
        int, typer.Option(envvar="SWARM_LAST", metavar="N", min=1, help="Only the last N.")
    ] = 20,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the latest runs, the newest first.

    \b
    Example:
      swarm runs --last 5 --store sqlite:///swarm.db
    """
    from swarm.app import documents, show
    from swarm.app.page import status
    from swarm.app.terminal import console
    from swarm.store import Store

    with Store.open(choose(context, ["store"]).value("store"), create=False) as opened:
        found = [(run, status(opened, run)) for run in opened.runs(last)]
    if json_:
        documents.print_json(
            [{**documents.run_document(run), "status": status} for run, status in found]
        )
    else:
        show.runs(console(), found)


@app.command(name="show")
def show_(
    context: typer.Context,
    run: RunArgument,
    trace: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=LAST_RUN, help="One question, call by call."),
    ] = None,
    batches: Annotated[
        bool, typer.Option("--batches", help="Every engine call that was made for the run.")
    ] = False,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a run, or one trace of it call by call.

    \b
    Example:
      swarm show 3
      swarm show 3 --trace 0
    """
    from swarm.app import documents, show
    from swarm.app.page import look
    from swarm.app.terminal import console
    from swarm.runtime.routing import calls_about
    from swarm.store import Store

    if trace is not None and batches:
        raise InputError("`--trace` and `--batches` exclude each other: give one of them")
    chosen = choose(context, ["store"])
    with Store.open(chosen.value("store"), create=False) as opened:
        if trace is not None:
            one = opened.trace(run, trace)
            asked = calls_about(opened, one)
            if json_:
                documents.print_json(documents.trace_document(one, asked))
            else:
                show.trace(console(), one, asked)
        elif batches:
            made = opened.batches(run)
            if json_:
                documents.print_json(documents.batches_document(made))
            else:
                show.batches(console(), made)
        else:
            page = look(opened, run)
            if json_:
                documents.print_json(documents.page_document(page))
            else:
                show.page(console(), page, chosen.store_flag())


@app.command()
def replay(
    context: typer.Context,
    run: RunArgument,
    task: TaskOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check that a run comes out as it was recorded.

    It is run again from its recorded responses alone: no model is loaded. Every prompt is built and
    every answer scored anew, and the first that does not come out as recorded is named; the exit
    code is then 1. The task is --task, or the one the run was made with if it is still there.

    \b
    Example:
      swarm replay 3
    """
    from dataclasses import asdict, replace

    from swarm.app import documents, show
    from swarm.app.jobs import task_of
    from swarm.app.terminal import console
    from swarm.replay import replay
    from swarm.store import Store

    chosen = choose(context, ["task", "store"])
    with Store.open(chosen.value("store"), create=False) as opened:
        scored_by, why_not = task_of(opened.run(run), chosen.value("task"))
        try:
            report = replay(opened, run, task=scored_by, progress=_progress(quiet))
        except DivergenceError as error:
            if json_:
                documents.print_json(documents.divergence_document(run, error))
            raise
    report = replace(report, notes=(*report.notes, *why_not))
    if json_:
        documents.print_json({"same": True, **asdict(report)})
    else:
        show.report(console(), report)


@app.command(cls=BarePool)
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


@app.command()
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


@app.command()
def plot(
    context: typer.Context,
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", envvar="SWARM_OUT", metavar="DIR", help="Where they go."),
    ] = Path("plots"),
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a run: its batches over time, and a job's way.

    Every picture that the run has data for is written as PNG and SVG into DIR: timeline; of jobs
    also convergence, swarm, graphs, contribution, places, calls, coefficients,
    coefficients_by_iteration.

    \b
    Example:
      swarm plot 3 -o plots
    """
    from swarm.app import documents
    from swarm.app.plot import draw
    from swarm.app.terminal import console

    drawn = draw(choose(context, ["store"]).value("store"), run, out)
    if json_:
        documents.print_json(drawn.document())
    else:
        drawn.show(console())


@app.command()
def routers(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Recordings: a folder, or .jsonl(.gz) files."),
    ],
    router: Annotated[
        list[str] | None,
        typer.Option(envvar="SWARM_ROUTER", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    seed: Annotated[
        int, typer.Option(envvar="SWARM_SEED", metavar="N", min=0, help="How questions are parted.")
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw cost against accuracy: .png, .svg or .pdf."),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BENCHMARK=N", help="Its highest score, where not 1; may be repeated."
        ),
    ] = None,
    store: StoreOption = None,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare routers on a recorded pool: accuracy and cost of each.

    Routers are fitted on 70 % of the questions of each benchmark and judged by the others.
    Questions are embedded once and kept in the store.

    \b
    Example:
      swarm routers recordings/ --plot routers.svg
      swarm routers recordings/ --router knn --router blend
    """
    from swarm.app import documents
    from swarm.app.routers import check_plot, draw, judge, read_scale
    from swarm.app.terminal import console

    if plot is not None:
        check_plot(plot)
    url = choose(context, ["store"]).value("store")
    highest = read_scale(scale or ())
    table = judge(paths, routers=router or (), seed=seed, store=url, scale=highest)
    if plot is not None:
        draw(table, plot)
    if json_:
        documents.print_json(table.document())
    else:
        table.show(console())


@app.command(name="report")
def report_(
    context: typer.Context,
    runs: Annotated[
        list[int],
        typer.Argument(metavar="RUN...", min=1, max=LAST_RUN, help="The ids of runs."),
    ],
    task: TaskOption = None,
    pool: PoolOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Analyse runs: collaborative gain, roles, contributions.

    Collaborative gain needs each expert's scores alone. What the store lacks of them is asked only
    if --pool is given, and recorded as a run. Several jobs are also compared by their pools.

    \b
    Example:
      swarm report 3
      swarm report 3 4 5 --json
    """
    from swarm.app import documents
    from swarm.app.report import make_report
    from swarm.app.terminal import console

    chosen = choose(context, ["task", "pool", "store"])
    report = make_report(runs, chosen, quiet=quiet)
    if json_:
        documents.print_json(report.document())
    else:
        report.show(console())


def _progress(quiet: bool) -> Progress:
    from swarm.runtime.progress import Silent, default_progress

    return Silent() if quiet else default_progress()


@contextmanager
def _resumable(chosen: Chosen, *words: str, as_json: bool) -> Iterator[None]:
    """On Ctrl-C, says what has been kept and how to go on."""
    started = datetime.now(UTC)
    try:
        yield
    except KeyboardInterrupt:
        from swarm.app.documents import print_json

        run = _interrupted_since(chosen.value("store"), started)
        command = chosen.command(*words)
        if as_json:
            print_json({"status": "interrupted", "run": run, "go_on": command})
        kept = (
            "nothing was recorded" if run is None else f"all answers so far are kept in run {run}"
        )
        _say(f"\ninterrupted: {kept}; go on with:\n  {command}")
        raise typer.Exit(INTERRUPTED) from None


def _interrupted_since(url: str, started: datetime) -> int | None:
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


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


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
        _say("interrupted")
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
    from swarm.app.terminal import one_line

    if debug:
        traceback.print_exc()
    _say(f"error: {one_line(message)}")
    return code
