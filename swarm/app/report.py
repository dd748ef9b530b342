"""What `swarm report` does: the analyses of one run, and of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from swarm.agents.expert import Pool
from swarm.analysis import pools
from swarm.analysis.contribution import by_place, jfk_by_iteration
from swarm.analysis.gain import CollaborativeGain, collaborative_gain
from swarm.analysis.job import JobHistory
from swarm.analysis.roles import ACTS, Heterogeneity, Score, role_heterogeneity
from swarm.analysis.singles import alone, scores_of, side_by_side
from swarm.app import tables
from swarm.app.doctor import require_engines
from swarm.app.documents import Document
from swarm.app.jobs import load_pool, task_of
from swarm.app.settings import Chosen
from swarm.app.terminal import one_line, plain
from swarm.app.watch import WatchedRuntime, watch
from swarm.errors import InputError, PoolError, TaskError
from swarm.graphs import topologies
from swarm.runtime.system import evaluate
from swarm.store import EvaluationView, RunView, Store
from swarm.tasks import Task


@dataclass(frozen=True)
class Measured:
    """A system's score on a split."""

    parts: tuple[EvaluationView, ...]
    """Evaluations of its graph, which together are whole."""

    @property
    def split(self) -> str:
        return self.parts[0].split

    @property
    def task(self) -> bytes:
        return self.parts[0].task

    @property
    def questions(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def score(self) -> float:
        return sum(part.score * part.size for part in self.parts) / self.questions


@dataclass(frozen=True)
class RunReport:
    """What one run says."""

    run: RunView
    job: JobHistory | None
    """None for a run that is an evaluation."""
    system: Measured | None
    """How it was measured: on other questions than were searched on, if that was done."""
    gain: CollaborativeGain | None
    roles: Heterogeneity | None
    notes: tuple[str, ...]
    """What is missing, and how to get it."""


@dataclass(frozen=True)
class Report:
    """What `swarm report` prints."""

    runs: tuple[RunReport, ...]

    def outcomes(self) -> list[pools.Outcome]:
        return [pools.outcome(report.job) for report in self.runs if report.job is not None]

    def document(self) -> Document:
        outcomes = self.outcomes()
        return {
            "runs": [_document(report) for report in self.runs],
            "outcomes": [outcome._asdict() for outcome in outcomes],
            "measured_on": pools.measured_on(outcomes) if outcomes else None,
            "by_number_of_experts": [row._asdict() for row in pools.by_number(outcomes)],
            "by_distinct_experts": [row._asdict() for row in pools.by_diversity(outcomes)],
        }

    def show(self, console: Console) -> None:
        for report in self.runs:
            _show(console, report)
        if len(outcomes := self.outcomes()) > 1:
            _show_outcomes(console, outcomes)


def make_report(runs: Sequence[int], chosen: Chosen, *, quiet: bool) -> Report:
    """Reads the runs; asks experts alone only where a pool is given and the store lacks them.

    Raises:
        InputError: there is no such run, or the task or pool given is not the run's.
    """
    pool = load_pool(chosen.value("pool")) if chosen.value("pool") else None
    with Store.open(chosen.value("store"), create=False) as store:
        found = [_read(store, run, chosen, pool, quiet=quiet) for run in dict.fromkeys(runs)]
    return Report(tuple(found))


def _read(
    store: Store, number: int, chosen: Chosen, pool: Pool | None, *, quiet: bool
) -> RunReport:
    run = store.run(number)
    job = JobHistory.load(store, number) if run.kind == "job" else None
    system = _measured(store, run, job)
    if system is None:
        why = (f"run {number} has no evaluations: there is nothing to analyse",)
        return RunReport(run, job, None, None, None, why)
    task, notes = _task(run, system, chosen)
    if task is None:
        notes.append("responses are not scored: roles say only who reads and who repeats whom")
    roles = None
    if len({part.graph for part in system.parts}) > 1:
        notes.append("no roles: they are those of one graph, and a policy chose several")
    else:
        traces = chain.from_iterable(store.traces(part.run, part.id) for part in system.parts)
        roles = role_heterogeneity(traces, None if task is None else _scorer(task, system.split))
    experts = tuple(run.settings.get("experts", {}))
    singles = alone(store, run, experts, system.parts[0])
    missing = [name for name in experts if name not in singles]
    if missing and pool is not None:
        if task is None:
            raise InputError("`--pool` is given to ask experts alone: give `--task`, too")
        _ask_alone(store, run, system, missing, task, pool, quiet=quiet)
        singles, missing = alone(store, run, experts, system.parts[0]), []
    gain = None
    if missing or not experts:
        which = ", ".join(f"`{name}`" for name in missing)
        notes.append(
            f"no collaborative gain: never scored alone on `{system.split}`: {which}: "
            "give `--pool` (and `--task`) to have that done now and recorded"
        )
    else:
        together, each = side_by_side(scores_of(store, *system.parts), singles)
        if together.size:
            gain = collaborative_gain(together, each)
        else:
            notes.append("no collaborative gain: experts and system have no questions in common")
    if roles is not None and not any(sum(agent.acts.values()) for agent in roles.agents):
        roles = None
    return RunReport(run, job, system, gain, roles, tuple(notes))


def _measured(store: Store, run: RunView, job: JobHistory | None) -> Measured | None:
    """Of a job: the best graph where it was tested on most questions, else where it was found. Of
    an evaluation: the best graph, or all of them where a policy chose them."""
    if job is not None:
        tested = max(job.tested, key=lambda tested: tested.evaluation.size, default=None)
        parts = job.evaluations_of(job.best.graph) if tested is None else [tested.evaluation]
        return Measured(tuple(parts))
    if "policy" in run.settings:
        return Measured(tuple(store.evaluations(run.id))) if store.evaluations(run.id) else None
    best = max(store.evaluations(run.id), key=lambda view: view.score, default=None)
    return None if best is None else Measured((best,))


def _scorer(task: Task, split: str) -> Score:
    examples = task.split(split)
    return lambda trace, text: task.score(examples[trace.position], text)


def _task(run: RunView, system: Measured, chosen: Chosen) -> tuple[Task | None, list[str]]:
    """The task that the evaluation was made on, if it is there; what is in the way."""
    given = chosen.value("task")
    task, notes = task_of(run, given)
    if task is None or task.fingerprint == system.task:
        return task, notes
    if given is not None:
        raise TaskError(
            f"`--task {given}`: is not the task of run {run.id}: questions or scorer differ"
        )
    return None, [f"the task of run {run.id} is not what it was: questions or scorer differ"]


def _ask_alone(
    store: Store,
    run: RunView,
    beside: Measured,
    names: Sequence[str],
    task: Task,
    pool: Pool,
    *,
    quiet: bool,
) -> None:
    """Scores each expert alone on the questions of a system, recorded as a run."""
    for name in names:
        if pool[name].fingerprint.hex() != run.settings["experts"][name]["fingerprint"]:
            raise PoolError(
                f"expert `{name}` of pool `{pool.name}` is not the one of run {run.id}: "
                "weights or sampling differ: give the pool of that run"
            )
    require_engines(pool[name] for name in names)
    title = f"{task.name} {beside.split}: experts alone"
    with watch(title, beside.questions * len(names), quiet=quiet) as watching:
        evaluate(
            [topologies.single(name) for name in names],
            task,
            pool,
            split=beside.split,
            limit=beside.questions,
            store=store,
            runtime=WatchedRuntime(watching, pool.memory),
            name=title,
        )


def _document(report: RunReport) -> Document:
    job, system, gain, roles = report.job, report.system, report.gain, report.roles
    return {
        "run": report.run.id,
        "task": report.run.settings.get("task"),
        "experts": list(report.run.settings.get("experts", {})),
        "system": system
        and {"split": system.split, "score": system.score, "questions": system.questions},
        "history": job and _history(job),
        "gain": gain and {**gain._asdict(), "groups": [group._asdict() for group in gain.groups]},
        "roles": roles
        and {
            "entropy": roles.entropy,
            "divergence": roles.divergence,
            "agents": [
                {**acts._asdict(), "agent": acts.agent.name, "expert": acts.agent.expert}
                for acts in roles.agents
            ],
        },
        "notes": list(report.notes),
    }


def _history(job: JobHistory) -> Document:
    last = job.iterations[-1]
    places = by_place(job)
    return {
        "split": job.split,
        "score": job.best.score,
        "iteration": job.best.iteration,
        "step": job.best.step,
        "iterations": len(job.iterations),
        "calls": last.calls,
        "asked": last.asked,
        "spared": dict(last.spared),
        "jfk": {
            expert: _plain(column)
            for expert, column in zip(job.experts, jfk_by_iteration(job).T, strict=True)
        }
        if any(iteration.weight for iteration in job.iterations)
        else None,
        "places": {
            expert: {"mean": _plain(mean), "graphs": _plain(graphs)}
            for expert, mean, graphs in zip(job.experts, *places, strict=True)
        },
    }


def _plain(values: Any) -> list[float | None]:
    """JSON has no nan."""
    return [None if np.isnan(value) else float(value) for value in values]


def _show(console: Console, report: RunReport) -> None:
    run, job, system = report.run, report.job, report.system
    console.print(Text(f"run {run.id} · {one_line(run.name, 60)}", "bold"))
    if job is not None:
        last, best = job.iterations[-1], job.best
        found = f"iteration {best.iteration} of {len(job.iterations)}, {best.step}-step"
        lines = {
            f"best on {job.split}": f"{best.score:.3f}  ({found})",
            **{
                f"on {view.split}": f"{view.score:.3f}  (95 % between {low:.3f} and {high:.3f})"
                for view, low, high in job.tested
            },
            "calls": f"{last.calls:,}, asked {last.asked:,} ({_share(last.asked, last.calls)})",
            "spared": ", ".join(
                f"{name} {count:,} ({_share(count, last.calls)})"
                for name, count in last.spared.items()
            ),
        }
        tables.pairs(console, {name: text for name, text in lines.items() if text})
        _show_contribution(console, job)
    if report.gain is not None and system is not None:
        _show_gain(console, report.gain, system, len(run.settings["experts"]))
    if report.roles is not None and system is not None:
        _show_roles(console, report.roles, system)
    for note in report.notes:
        console.print(Text(f"note: {plain(note)}", "yellow"), soft_wrap=True)
    console.print()


def _show_gain(console: Console, gain: CollaborativeGain, system: Measured, experts: int) -> None:
    _table(
        console,
        f"collaborative gain on {system.split}: {gain.gain:+.3f} "
        f"(95 % between {gain.low:+.3f} and {gain.high:+.3f})",
        ("solved alone by", "questions:", "system:", "expected:", "gain:"),
        [
            (
                f"{group.solvers} of {experts}",
                f"{group.questions:,}",
                f"{group.accuracy:.3f}",
                f"{group.expected:.3f}",
                f"{group.accuracy - group.expected:+.3f}",
            )
            for group in gain.groups
        ],
    )


def _show_roles(console: Console, roles: Heterogeneity, system: Measured) -> None:
    rows = []
    for acts in roles.agents:
        total = max(sum(acts.acts.values()), 1)
        shares = [f"{acts.acts[act] / total:.0%}" if acts.acts[act] else "" for act in ACTS]
        accuracy = "–" if acts.accuracy is None else f"{acts.accuracy:.3f}"
        rows.append((acts.agent.name, acts.agent.expert, *shares, accuracy, f"{acts.entropy:.2f}"))
    _table(
        console,
        f"roles on {system.split}: agents differ by {roles.divergence:.2f} bits "
        f"(of {roles.entropy:.2f} in all)",
        ("agent", "expert", *(f"{act}:" for act in ACTS), "score:", "bits:"),
        rows,
    )


def _show_contribution(console: Console, job: JobHistory) -> None:
    if any(iteration.weight for iteration in job.iterations):
        scores = jfk_by_iteration(job)
        order = np.argsort(-np.nan_to_num(scores[-1], nan=-1.0), kind="stable")
        rows = []
        for i in order:
            known = scores[~np.isnan(scores[:, i]), i]
            figures = (known[0], known[-1], known.max()) if known.size else (None,) * 3
            rows.append((job.experts[i], *map(tables.score, figures)))
        title = f"contribution: JFK-score on {job.split}"
        _table(console, title, ("expert", "first:", "last:", "highest:"), rows)
        return
    mean, graphs = by_place(job)
    if not graphs.size:
        return
    order = np.argsort(-np.nan_to_num(mean[:, 0], nan=-1.0), kind="stable")
    _table(
        console,
        f"contribution: mean score on {job.split} of the graphs that an expert ends",
        ("expert", "graphs:", "score:"),
        [
            (
                job.experts[i],
                f"{graphs[i, 0]:.0f}",
                tables.score(mean[i, 0] if graphs[i, 0] else None),
            )
            for i in order
        ],
    )


def _show_outcomes(console: Console, outcomes: Sequence[pools.Outcome]) -> None:
    _table(
        console,
        "jobs",
        ("run:", "task", "optimizer", "experts:", "distinct:", "dev:", "test:", "asked:"),
        [
            (
                str(one.run),
                one.task,
                one.optimizer,
                str(one.experts),
                str(one.distinct),
                tables.score(one.dev),
                tables.score(one.test),
                f"{one.asked:,}",
            )
            for one in outcomes
        ],
    )
    on = pools.measured_on(outcomes)
    if len({one.task for one in outcomes}) > 1:
        on += ", over different tasks"
    for what, rows in (
        ("number of experts", pools.by_number(outcomes)),
        ("number of distinct experts", pools.by_diversity(outcomes)),
    ):
        _table(
            console,
            f"score on {on} by {what}",
            (f"{what}:", "jobs:", "mean:", "lowest:", "highest:"),
            [
                (str(row.value), str(row.jobs), *map(tables.score, (row.mean, row.low, row.high)))
                for row in rows
            ],
        )


def _table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    tables.heading(console, title)
    table = tables.table(*columns)
    for row in rows:
        table.add_row(*(one_line(cell, 40) for cell in row))
    console.print(table)


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
