"""One optimizer's recorded, resumable work: found or begun, locked, and kept step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Request, Response
from swarm.errors import BudgetError
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.budget import Account, Budget, spent_before
from swarm.runtime.cache import Answered, MemoryCache, Recorder
from swarm.runtime.progress import Progress
from swarm.runtime.recording import StoreRecorder, WeakestAsked, finishing
from swarm.runtime.runtime import Runtime, default_runtime
from swarm.store import AnswerRecord, BatchRecord, EvaluationRecord, Store
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
        self.stopped: str | None = None
        """The limit of its budget that has ended the block, if one has."""
        self.summary: dict[str, Any] = {}
        """Kept with the run, however the block ends."""
        self.shortened = 0 if store is None or run is None else store.count_shortened(run)
        """Calls that were committed and whose prompts were shortened."""
        self._store = store

    @property
    def store(self) -> Store | None:
        """Where the job is kept."""
        return self._store

    def commit(self, evaluations: Sequence[EvaluationRecord], state: Mapping[str, Any]) -> None:
        """Keeps a step: its evaluations and the state after it, together or not at all."""
        if self._store is not None and self.run is not None:
            with self._store.transaction():
                self._store.add_evaluations(self.run, evaluations)
                self._store.save_state(self.run, state)
        self.shortened += sum(len(evaluation.shortened) for evaluation in evaluations)
        self.state = dict(state)

    def scores(self) -> list[tuple[AgentGraph, dict[int, float]]]:
        """What was committed so far: each evaluation's graph, and question → score."""
        if self._store is None or self.run is None:
            return []
        scores = self._store.scores(self.run)
        return [(view.graph, scores[view.id]) for view in self._store.evaluations(self.run)]


@contextmanager
def open_job(
    store: str | Store | None,
    *,
    key: bytes,
    title: str,
    settings: Mapping[str, Any],
    progress: Progress,
    budget: Budget | None = None,
    pool: Pool | None = None,
    runtime: Runtime | None = None,
) -> Iterator[Job]:
    """The job of this key: a new one, or the one that was begun before, for the time of the block.

    How the block ends is recorded. Nobody else can be at the job meanwhile. Without a store
    everything is kept in memory, for as long as the job lasts.

    A block that a limit of `budget` ends is left quietly, with `Job.stopped` set, if anything was
    committed. What comes after the block goes on with what was committed last.

    Args:
        settings: kept with the run, which takes a `name` among them for its name, else `title`.
        pool: whose prices count, and what is promised of whose answers.
        runtime: has the engines; None: the one that is shared.

    Raises:
        InputError: `budget` has a limit that can't be reached. Nothing was recorded.
        BusyError: another process is at this job.
        BudgetError: a limit was reached before anything was committed.
    """
    if budget is not None and pool is not None:
        budget.check(pool)
    memory = None if pool is None else pool.memory
    engine = (runtime or default_runtime(memory)).residency.engine
    experts: Mapping[str, Expert] = pool or {}
    if store is None:
        account = Account(budget, pool=pool)
        weakest = WeakestAsked(engine, experts)
        job = Job(CountingRecorder(MemoryCache(), progress, account, weakest), None, None)
        with _stopping(job), progress:
            yield job
        return
    with ExitStack() as stack:
        if isinstance(store, str):
            store = stack.enter_context(Store.open(store))
        with store.transaction():  # so that of two who begin it at once one finds the other's
            found = store.find_job(key)
            name = settings.get("name") or title
            run = found.id if found else store.start_run("job", name, settings, key=key)
        stack.enter_context(store.lock_run(run))
        stack.enter_context(progress)
        account = Account(budget, spent_before(store, run, experts), pool)
        before = (view.batch for view in store.batches(run))
        weakest = WeakestAsked(engine, experts, before)
        recorder = CountingRecorder(StoreRecorder(store, run), progress, account, weakest)
        job = Job(recorder, store, run)
        job.state = store.state(run)
        # Read again: another process may have finished it while this one waited.
        if found is not None and store.run(run).status == "done":
            job.done = True
            yield job
            return
        if found is not None:
            store.resume_run(run)
        with _stopping(job), finishing(store, run) as summary:
            try:
                yield job
            finally:
                shortened = {"shortened": job.shortened}
                summary.update({**job.summary, **shortened, **recorder.used()})


@contextmanager
def _stopping(job: Job) -> Iterator[None]:
    """Ends a block that a limit has stopped: quietly, if there is something to show for it."""
    try:
        yield
    except BudgetError as error:
        job.stopped = error.limit
        if job.state is None:
            raise


class CountingRecorder(Recorder):
    """Another recorder, with an account of what was used."""

    def __init__(
        self,
        inner: Recorder,
        progress: Progress,
        account: Account | None = None,
        weakest: WeakestAsked | None = None,
    ) -> None:
        self._inner = inner
        self._progress = progress
        self._account = account or Account()
        self._weakest = weakest

    @property
    def asked(self) -> int:
        """How many calls were made since the job began."""
        return self._account.spent.calls

    def used(self) -> dict[str, Any]:
        """What the job has used since it began, and what is promised of it, for its summary."""
        spent = self._account.spent
        return {
            **({"determinism": self._weakest.found.value} if self._weakest else {}),
            "asked": spent.calls,
            "tokens": spent.tokens,
            "cost": spent.cost,
            "seconds": spent.seconds,
        }

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        return self._inner.known(keys)

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self.record_all([(batch, experts, answers)])

    def record_all(self, answered: Sequence[Answered]) -> None:
        self._inner.record_all(answered)
        for batch, experts, _ in answered:
            self._account.book(batch, experts)
            if self._weakest is not None:
                self._weakest.book(batch)
        self._progress.calls(self.asked)

    @asynccontextmanager
    async def asking(self, requests: Sequence[Request]) -> AsyncIterator[int]:
        async with self._account.asking(requests) as allowed:
            yield allowed
