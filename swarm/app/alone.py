"""What `swarm export RUN --pool` does: experts' answers alone become a recorded pool in a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swarm.agents.recording import Recording
from swarm.app.documents import Document
from swarm.app.graph_argument import run_id
from swarm.app.jobs import task_of
from swarm.app.settings import Chosen
from swarm.errors import InputError, TaskError
from swarm.runtime.alone import recording_of
from swarm.store import RunView, Store
from swarm.tasks import Task

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Written:
    """A recorded pool that was written."""

    path: Path
    recording: Recording
    notes: tuple[str, ...]
    """What is missing, and how to get it."""

    def document(self) -> Document:
        return {
            "file": str(self.path.resolve()),
            "questions": len(self.recording),
            "means": self.recording.means(),
            "random": self.recording.random(),
            "oracle": self.recording.oracle(),
            "notes": list(self.notes),
        }

    def show(self, console: Console) -> None:
        from swarm.app.terminal import plain

        recording = self.recording
        size = f"{len(recording):,} questions × {len(recording.models)} experts"
        lines = [
            f"{size} written to {self.path}",
            f"any at random {recording.random():.3f}, the best for each {recording.oracle():.3f}",
            *(f"note: {note}" for note in self.notes),
            f'in Python: swarm.Recording.load("{self.path}", models="union")',
        ]
        for line in lines:
            console.print(plain(line), markup=False, soft_wrap=True)


def export_alone(argument: str, chosen: Chosen, out: Path | None, *, everywhere: bool) -> Written:
    """Writes the file; see `swarm.runtime.alone.recording_of`.

    Raises:
        InputError: `argument` is no run, the file is there already, the task is not the run's, or
            no expert was asked alone.
    """
    number = run_id(argument)
    if number is None:
        raise InputError(f"`{argument}` is no run: a recorded pool is made of a run, by its id")
    path = out or Path(f"run-{number}.jsonl.gz")
    if path.exists():
        raise InputError(f"`{path}` is already there: give another file with `--out`")
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"`{path}`: a recorded pool is a .jsonl or .jsonl.gz file: name it so")
    with Store.open(chosen.value("store"), create=False) as store:
        run = store.run(number)
        task, notes = _task(store, run, chosen)
        recording = recording_of(store, number, task=task, everywhere=everywhere)
    recording.save(path)
    return Written(path, recording, (*notes, *_missing(recording)))


def _task(store: Store, run: RunView, chosen: Chosen) -> tuple[Task | None, list[str]]:
    given = chosen.value("task")
    task, notes = task_of(run, given)
    if task is not None and task.fingerprint not in {e.task for e in store.evaluations(run.id)}:
        if given is not None:
            raise TaskError(
                f"{chosen.blame('task')}: `{given}` is not the task of run {run.id}: questions or "
                "scorer differ"
            )
        task, notes = None, [f"the task of run {run.id} is not what it was"]
    if task is None:
        notes.append("no answers are read from the texts, and choices are part of the questions")
    return task, notes


def _missing(recording: Recording) -> Iterator[str]:
    if np.isnan(recording.costs).all():
        yield "no costs: no expert of the pool has a `price`; tokens are there"
    lacking = np.isnan(recording.scores).sum()
    if lacking:
        yield (
            f"{lacking:,} of {recording.scores.size:,} scores are missing: not all experts were "
            "asked all questions"
        )
