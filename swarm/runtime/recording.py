"""Runs in the store: answers are looked up there and kept there as they come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from swarm.agents.engines import Engine
from swarm.agents.engines.determinism import Determinism
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Response
from swarm.agents.role import Role
from swarm.errors import BudgetError, StoreError
from swarm.runtime.cache import Answered, MemoryCache, Recorder
from swarm.store import AnswerRecord, BatchRecord, ExpertRecord, Store

current_store: ContextVar[Store | None] = ContextVar("current_store", default=None)
"""The store of the run whose policy is at work, or is fitted: there its embeddings are kept."""


class StoreRecorder(Recorder):
    """Keeps the calls of one run; each batch is committed before its answers are used.

    Answers are also kept in memory, since a search asks for the same ones again and again.
    """

    def __init__(self, store: Store, run: int) -> None:
        self._store = store
        self._run = run
        self._memory = MemoryCache()
        self._experts: set[bytes] = set()

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        found = self._memory.known(keys)
        new = [key for key in keys if key not in found]
        if not new:
            return found
        stored = self._store.known(new)
        self._memory.keep(stored.items())
        return {**found, **stored}

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self.record_all([(batch, experts, answers)])

    def record_all(self, answered: Sequence[Answered]) -> None:
        with self._store.transaction():
            self.add_experts([expert for _, experts, _ in answered for expert in experts])
            numbers = self._store.add_batches(self._run, [batch for batch, _, _ in answered])
            self._store.add_answers(
                answer._replace(batch=number)
                for number, (_, _, answers) in zip(numbers, answered, strict=True)
                for answer in answers
            )
        for batch, experts, answers in answered:
            self._memory.record(batch, experts, answers)

    def add_experts(self, experts: Sequence[Expert]) -> None:
        new = {e.fingerprint: e for e in experts if e.fingerprint not in self._experts}
        if new:
            self._store.add_experts([expert_record(expert) for expert in new.values()])
            self._experts.update(new)


def expert_record(expert: Expert) -> ExpertRecord:
    """What the store keeps of an expert: all of it. (Keys of hosted models are never in it: an
    expert only names the environment variable.)"""
    return ExpertRecord(expert.fingerprint, expert.name, expert.model_dump(mode="json"))


def wording(
    pool: Pool, experts: Iterable[str], roles: Mapping[str, Role] | None = None
) -> dict[str, Any]:
    """What prompts are built from beside graph and questions, for a run's settings: the experts'
    styles and what becomes of prompts that are too long, where that is not left to their engines;
    and the instructions of roles that are not the library's."""
    own = {**pool.roles, **(roles or {})}
    return {
        "experts": {
            name: {
                "prompt": pool[name].prompt,
                "fingerprint": pool[name].fingerprint.hex(),
                **pool[name].model_dump(include={"context", "overflow"}, exclude_defaults=True),
            }
            for name in experts
        },
        "instructions": {name: role.instructions for name, role in own.items()},
    }


class WeakestAsked:
    """The weakest `Determinism` of all that a run has asked.

    It follows from the batches alone, so that a run that was interrupted says what one that was not
    does. An expert that is not in `pool` came to be in the run (with other weights, or to count
    votes), and is taken for one like those with its engine.
    """

    def __init__(
        self,
        engine: Callable[[str], Engine],
        pool: Mapping[str, Expert],
        before: Iterable[BatchRecord] = (),
    ) -> None:
        """`engine`: by name. `before`: what earlier sessions of the run have asked."""
        self._engine = engine
        self._pool = pool
        self._seen: set[tuple[str, str]] = set()
        self.found = Determinism.BITWISE
        for batch in before:
            self.book(batch)

    def book(self, batch: BatchRecord) -> None:
        """Takes a batch into account, if any of it was answered."""
        if not batch.prompt_tokens:
            return
        if batch.seedless:
            self.found = Determinism.REPLAY_ONLY
        for name in batch.experts:
            if (name, batch.base) not in self._seen:
                self._seen.add((name, batch.base))
                self.found = Determinism.weakest((self.found, self._of(name, batch.base)))

    def _of(self, name: str, base: str) -> Determinism:
        engine, _, model = base.partition(":")
        if name in self._pool:
            like = [self._pool[name]]
        else:
            like = [each for each in self._pool.values() if each.engine == engine]
            like = like or [Expert(name=name, engine=engine, model=model)]
        return Determinism.weakest(self._engine(engine).determinism(each) for each in like)


@contextmanager
def finishing(store: Store, run: int) -> Iterator[dict[str, Any]]:
    """Records how a run ends; what is put into the dictionary becomes its summary.

    Ctrl-C and cancellation leave it `interrupted`, a limit `stopped`, an error `failed`: to be
    resumed in any case.
    """
    summary: dict[str, Any] = {}
    try:
        yield summary
    except StoreError:
        raise  # there is nowhere to record it
    except BudgetError as error:
        store.finish_run(run, "stopped", {**summary, "stopped": error.limit})
        raise
    except Exception as error:
        store.finish_run(run, "failed", summary or None, error=f"{type(error).__name__}: {error}")
        raise
    except BaseException:
        store.finish_run(run, "interrupted", summary or None)
        raise
    store.finish_run(run, "done", summary)
