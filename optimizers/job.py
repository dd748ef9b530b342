"""One optimizer's recorded, resumable work: found or begun, locked, and kept step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Response
from swarm.runtime.cache import MemoryCache, Recorder
from swarm.runtime.progress import Progress
from swarm.runtime.recording import StoreRecorder, finishing
from swarm.store import AnswerRecord, BatchRecord, EvaluationRecord, EvaluationView, Store
from swarm.tasks import Task


def job_key(description: Mapping[str, Any], task: Task, pool: Pool) -> bytes:
    """What makes a job the same job: settings, questions, and experts with their weights."""
    digest = hashlib.blake2b(digest_size=32)
    digest.update(json.dumps(description, sort_keys=True).encode())
    digest.update(task.fingerprint + pool.fingerprint)
    return digest.digest()


class Job:
    """A job as its optimizer sees it. See `open_job`."""

    def __init__(self, recorder: CountingRecorder, store: Store | None, run: int | None) -> None:
        self.recorder = recorder
        """For the scheduler."""
        self.run = run
        """The id in the store; None where there is none."""
        self.done = False
        """Whether it was finished before: `state` says how, and there is nothing to do."""
        self.state: dict[str, Any] | None = None
        """As committed last; None at the beginning."""
        self.summary: dict[str, Any] = {}
        """Kept with the run when it is finished."""
        self._store = store

    def commit(self, evaluations: Sequence[EvaluationRecord], state: Mapping[str, Any]) -> None:
        """Keeps a step: its evaluations and the state after it, together or not at all."""
        if self._store is None or self.run is None:
            return
        with self._store.transaction():
            for evaluation in evaluations:
                self._store.add_evaluation(self.run, evaluation)
            self._store.save_state(self.run, state)

    def evaluations(self) -> list[EvaluationView]:
        """What was committed so far."""
        if self._store is None or self.run is None:
            return []
        return self._store.evaluations(self.run)


@contextmanager
def open_job(
    store: str | Store | None,
    *,
    key: bytes,
    title: str,
    settings: Mapping[str, Any],
    progress: Progress,
) -> Iterator[Job]:
    """The job of this key: a new one, or the one that was begun before, for the time of the block.

    How the block ends is recorded. Nobody else can be at the job meanwhile. Without a store
    everything is kept in memory, for as long as the job lasts.

    Raises:
        BusyError: another process is at this job.
    """
    if store is None:
        with progress:
            yield Job(CountingRecorder(MemoryCache(), progress), None, None)
        return
    with ExitStack() as stack:
        if isinstance(store, str):
            store = stack.enter_context(Store.open(store))
        with store.transaction():  # so that of two who begin it at once one finds the other's
            found = store.find_job(key)
            run = found.id if found else store.start_run("job", title, settings, key=key)
        stack.enter_context(store.lock_run(run))
        stack.enter_context(progress)
        asked = sum(view.batch.requests for view in store.batches(run))
        job = Job(CountingRecorder(StoreRecorder(store, run), progress, asked), store, run)
        job.state = store.state(run)
        # Read again: another process may have finished it while this one waited.
        if found is not None and store.run(run).status == "done":
            job.done = True
            yield job
            return
        if found is not None:
            store.resume_run(run)
        with finishing(store, run) as summary:
            yield job
            summary.update(job.summary)


class CountingRecorder(Recorder):
    """Another recorder, with a count of the calls that were made."""

    def __init__(self, inner: Recorder, progress: Progress, asked: int = 0) -> None:
        self._inner = inner
        self._progress = progress
        self.asked = asked

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        return self._inner.known(keys)

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self._inner.record(batch, experts, answers)
        self.asked += batch.requests
        self._progress.calls(self.asked)
