"""What `swarm optimize` does with a job: foresees it, runs it, or runs many that are like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from swarm.app.documents import Document, graph_document, run_document
from swarm.app.jobs import LIMITS, Job, parse_set
from swarm.app.settings import FLAG, Chosen, Setting
from swarm.optimizers.estimate import Estimate, Plan, plan, sample
from swarm.optimizers.sweep import Swept, sweep, variants
from swarm.runtime.progress import Progress
from swarm.runtime.system import System
from swarm.store import RunView, Store


@dataclass(frozen=True)
class Foreseen:
    """What a job will take."""

    at_most: Plan
    estimate: Estimate | None

    def document(self) -> Document:
        estimate = None if self.estimate is None else asdict(self.estimate)
        return {"at_most": asdict(self.at_most), "estimate": estimate}


@dataclass(frozen=True)
class Found:
    """What a job has found."""

    system: System
    run: RunView
    go_on: str | None
    """The command that goes on where a limit has stopped it."""

    def document(self) -> Document:
        document = run_document(self.run)
        if self.system.fixed:
            document["graph"] = graph_document(self.system.graph)
        return document if self.go_on is None else {**document, "go_on": self.go_on}


@dataclass(frozen=True)
class Table:
    """What a sweep has found."""

    jobs: Sequence[Swept]
    """The best first."""
    go_on: str | None

    def document(self) -> Document:
        jobs = [
            {
                "run": swept.run.id,
                "status": swept.run.status,
                "settings": dict(swept.settings),
                "score": swept.score,
                "calls": (swept.run.summary or {})["asked"],
                "graph": graph_document(swept.system.graph),
            }
            for swept in self.jobs
        ]
        return {"jobs": jobs} if self.go_on is None else {"jobs": jobs, "go_on": self.go_on}


def foresee(job: Job, jobs: int, questions: int | None) -> Foreseen:
    """What so many jobs will take, also as estimated from so many questions if any are given."""
    split, limit = job.chosen.value("split"), job.chosen.value("limit")
    at_most = plan(job.optimizer, job.task, job.pool, split=split, limit=limit, jobs=jobs)
    if questions is None:
        return Foreseen(at_most, None)
    estimate = sample(
        job.optimizer, job.task, job.pool, questions, split=split, limit=limit, jobs=jobs
    )
    return Foreseen(at_most, estimate)


def run(job: Job, progress: Progress, words: Sequence[str]) -> Found:
    """Runs the job; `words` are the command without its settings."""
    system = job.optimizer.fit(
        job.task,
        job.pool,
        split=job.chosen.value("split"),
        limit=job.chosen.value("limit"),
        store=job.chosen.value("store"),
        progress=progress,
        settings=job.notes,
        budget=job.budget,
    )
    assert system.run is not None
    with Store.open(job.chosen.value("store"), create=False) as opened:
        view = opened.run(system.run)
    return Found(system, view, _go_on(job.chosen, [view], words))


def run_sweep(job: Job, count: int, progress: Progress, words: Sequence[str]) -> Table:
    """Runs `count` jobs like this one; what was given by `--set` is the same in all."""
    jobs = sweep(
        job.optimizer,
        count,
        job.task,
        job.pool,
        store=job.chosen.value("store"),
        split=job.chosen.value("split"),
        limit=job.chosen.value("limit"),
        fixed=fixed(job.chosen),
        budget=job.budget,
        progress=progress,
        settings=job.notes,
    )
    return Table(jobs, _go_on(job.chosen, [swept.run for swept in jobs], words))


def check_sweep(job: Job, count: int) -> None:
    """Raises `InputError` where there can't be such a sweep."""
    variants(job.optimizer, count, fixed=fixed(job.chosen))


def fixed(chosen: Chosen) -> list[str]:
    """The settings that `--set` gives."""
    return [key for key, _ in map(parse_set, chosen.value("set") or ())]


def _go_on(chosen: Chosen, runs: Sequence[RunView], words: Sequence[str]) -> str | None:
    """The command with twice the limits that have stopped any of `runs`."""
    stopped = {(run.summary or {}).get("stopped") for run in runs if run.status == "stopped"}
    raised = {name: Setting(2 * chosen.value(name), FLAG) for name in LIMITS if name in stopped}
    return Chosen({**chosen, **raised}).command(*words) if raised else None
