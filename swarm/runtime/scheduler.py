"""Where calls meet: columns of requests become waves of batches, one base model after the other.

Every agent of every running graph hands in a column of prompts and waits. When everything that runs
is waiting, a wave starts: what is known is answered from the cache, what was asked twice is asked
once, and the rest is grouped by base model and run, loaded bases first.

Promises (DESIGN.md): every request gets exactly one response or one error; a base is loaded at most
once a wave; never more bases are loaded than the residency allows; a failing request fails itself
only; cancelling one who waits takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple

from swarm.agents.engines import Engine
from swarm.agents.expert import Expert
from swarm.agents.messages import Messages, Request, Response, request_key
from swarm.errors import EngineError
from swarm.runtime.cache import Recorder
from swarm.runtime.residency import Residency
from swarm.store.records import AnswerRecord, BatchRecord

Outcome = Response | EngineError


class Answers(NamedTuple):
    """What a column was answered: three lists as long as the column."""

    outcomes: list[Outcome]
    keys: list[bytes] | None
    """Content addresses; None where nothing is recorded."""
    cached: list[bool]
    """Whether no request was made for it: it was known, or another had asked the same."""


class Participant:
    """One graph on its way: tells the scheduler how many columns it will hand in next.

    A context manager; the scheduler waits for it from enter to exit.
    """

    def __init__(self, scheduler: Scheduler, waves: Sequence[int]) -> None:
        """`waves[k]` agents of the graph run at the same time in its k-th step."""
        self._scheduler = scheduler
        self._waves = list(waves)
        self._step = 0
        self._asked = 0
        self._answered = 0

    def __enter__(self) -> Participant:
        self._scheduler._participants.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scheduler._participants.discard(self)
        self._scheduler._consider()

    @property
    def waiting(self) -> bool:
        """Whether it can do nothing until it is answered (or has nothing more to ask)."""
        return self._step == len(self._waves) or self._asked == self._waves[self._step]

    def _ask(self) -> None:
        self._asked += 1

    def _answer(self) -> None:
        self._answered += 1
        if self._answered == self._waves[self._step]:
            self._step += 1
            self._asked = self._answered = 0


@dataclass(eq=False)
class _Column:
    """A column in the scheduler: where each prompt's outcome will be found."""

    expert: Expert
    prompts: Sequence[Messages]
    draw: int
    participant: Participant | None
    future: asyncio.Future[Answers]


@dataclass
class _Group:
    """What one wave wants of one expert with one draw: every prompt once."""

    expert: Expert
    draw: int
    index: dict[Messages, int] = field(default_factory=dict)
    columns: list[tuple[_Column, list[int]]] = field(default_factory=list)
    """With the position of each of the column's prompts in `index`."""
    keys: list[bytes] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    unclaimed: set[int] = field(default_factory=set)
    """Requests that were made and for which no column has yet been named as the one who asked."""

    def add(self, column: _Column) -> None:
        index = self.index
        self.columns.append((column, [index.setdefault(p, len(index)) for p in column.prompts]))

    def missing(self) -> list[int]:
        return [i for i in range(len(self.index)) if i not in self.outcomes]

    def asked(self, i: int, outcome: Outcome) -> None:
        self.outcomes[i] = outcome
        self.unclaimed.add(i)

    def settle(self) -> None:
        """Answers every column."""
        outcomes, unclaimed, keys = self.outcomes, self.unclaimed, self.keys
        if len(self.columns) == 1 and len(unclaimed) == len(self.columns[0][1]):
            column, _ = self.columns[0]  # the hot path: every prompt new and asked once
            found = [outcomes[i] for i in range(len(outcomes))]
            _settle(column, Answers(found, keys or None, [False] * len(found)))
            return
        for column, places in self.columns:
            cached = []
            for i in places:
                cached.append(i not in unclaimed)
                unclaimed.discard(i)
            answers = Answers(
                [outcomes[i] for i in places], [keys[i] for i in places] if keys else None, cached
            )
            _settle(column, answers)


def _settle(column: _Column, answers: Answers) -> None:
    if column.participant is not None:
        column.participant._answer()
    if not column.future.done():  # whoever waited may have been cancelled
        column.future.set_result(answers)


class Scheduler:
    """Runs on one event loop; all methods must be called from it.

    Args:
        residency: the engines and what is loaded on them.
        recorder: where answers are looked up and kept; None remembers nothing.
    """

    def __init__(self, residency: Residency, recorder: Recorder | None = None) -> None:
        self.residency = residency
        self.recorder = recorder
        self.waves = 0
        """How many waves have run."""
        self.asked = 0
        """How many requests engines have answered."""
        self._pending: list[_Column] = []
        self._participants: set[Participant] = set()
        self._running: asyncio.Task[None] | None = None
        self._direct: set[asyncio.Task[None]] = set()
        self._in_flight: dict[tuple[bytes, int, Messages], asyncio.Future[Outcome]] = {}

    def join(self, waves: Sequence[int]) -> Participant:
        """A graph with these numbers of agents a step; enter what this returns while it runs."""
        return Participant(self, waves)

    async def ask(
        self,
        expert: Expert,
        prompts: Sequence[Messages],
        *,
        draw: int = 0,
        participant: Participant | None = None,
    ) -> Answers:
        """One outcome a prompt, in their order. Errors are returned, not raised."""
        loop = asyncio.get_running_loop()
        column = _Column(expert, prompts, draw, participant, loop.create_future())
        if participant is not None:
            participant._ask()
        if self.residency.engine(expert.engine).resident:
            self._pending.append(column)
        else:
            task = loop.create_task(self._run_directly(column))
            self._direct.add(task)
            task.add_done_callback(self._direct.discard)
        self._consider()
        return await column.future

    def _consider(self) -> None:
        """Starts a wave if everything that runs is waiting."""
        if (
            self._pending
            and self._running is None
            and all(participant.waiting for participant in self._participants)
        ):
            self._running = asyncio.get_running_loop().create_task(self._run_wave())
            self._running.add_done_callback(self._end_wave)

    def _end_wave(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # those who waited have it
        self._consider()

    async def _run_wave(self) -> None:
        columns, self._pending = self._pending, []
        self.waves += 1
        groups: dict[tuple[bytes, int], _Group] = {}
        for column in columns:
            key = (column.expert.fingerprint, column.draw)
            if key not in groups:
                groups[key] = _Group(column.expert, column.draw)
            groups[key].add(column)
        try:
            self._look_up(groups.values())
            bases: dict[str, list[_Group]] = {}
            for group in groups.values():
                if len(group.outcomes) == len(group.index):
                    group.settle()
                else:
                    bases.setdefault(group.expert.base, []).append(group)
            loaded = self.residency.loaded
            for base in sorted(bases, key=lambda b: (b not in loaded, b)):
                wanted = [(group, i) for group in bases[base] for i in group.missing()]
                await self._run_base(base, wanted)
                for group in bases[base]:
                    group.settle()
        except BaseException as error:
            _abandon(columns, error)
            raise

    async def _run_directly(self, column: _Column) -> None:
        """Answers a column of an engine that need not wait for a wave."""
        loop = asyncio.get_running_loop()
        group = _Group(column.expert, column.draw)
        group.add(column)
        mine: list[tuple[_Group, int]] = []
        others: dict[int, asyncio.Future[Outcome]] = {}
        promised: dict[int, tuple[bytes, int, Messages]] = {}
        prompts = list(group.index)
        try:
            self._look_up([group])
            for i in group.missing():
                name = (column.expert.fingerprint, column.draw, prompts[i])
                if name in self._in_flight:
                    others[i] = self._in_flight[name]
                else:
                    self._in_flight[name] = loop.create_future()
                    promised[i] = name
                    mine.append((group, i))
            if mine:
                await self._run_base(column.expert.base, mine)
        except BaseException as error:
            _abandon([column], error)
            raise
        finally:
            for i, name in promised.items():
                lost = EngineError("the request was given up before it was answered")
                self._in_flight.pop(name).set_result(group.outcomes.get(i, lost))
        for i, future in others.items():
            group.outcomes[i] = await future
        group.settle()

    def _look_up(self, groups: Iterable[_Group]) -> None:
        """Fills in keys, and the outcomes that are known."""
        if self.recorder is None:
            return
        keyed = list(groups)
        for group in keyed:
            fingerprint, draw = group.expert.fingerprint, group.draw
            group.keys = [request_key(fingerprint, prompt, draw) for prompt in group.index]
        known = self.recorder.known([key for group in keyed for key in group.keys])
        if known:
            for group in keyed:
                group.outcomes = {i: known[key] for i, key in enumerate(group.keys) if key in known}

    async def _run_base(self, base: str, wanted: Sequence[tuple[_Group, int]]) -> None:
        """Asks the experts of one base; fills in an outcome for each of `wanted`."""
        groups = {id(group): group for group, _ in wanted}
        prompts = {name: list(group.index) for name, group in groups.items()}
        requests = [Request(g.expert, prompts[id(g)][i], g.draw) for g, i in wanted]
        experts = [group.expert for group in groups.values()]
        try:
            engine, fresh, load_seconds = await self.residency.acquire(base, experts)
            batches = await engine.plan(requests)
        except Exception as error:
            failed = _as_engine_error(error, base)
            for group, i in wanted:
                group.asked(i, failed)
            return
        for batch in batches:
            started_at, clock = datetime.now(UTC), time.perf_counter()
            outcomes = await _generate(engine, [requests[place] for place in batch], base)
            seconds = time.perf_counter() - clock
            for place, outcome in zip(batch, outcomes, strict=True):
                group, i = wanted[place]
                group.asked(i, outcome)
            self.asked += len(batch)
            if self.recorder is None:
                continue
            answers = [
                AnswerRecord(
                    key=wanted[place][0].keys[wanted[place][1]],
                    expert=requests[place].expert.fingerprint,
                    messages=requests[place].messages,
                    draw=requests[place].draw,
                    response=outcome,
                )
                for place, outcome in zip(batch, outcomes, strict=True)
                if isinstance(outcome, Response)
            ]
            self.recorder.record(
                BatchRecord(
                    wave=self.waves,
                    base=base,
                    experts=tuple(dict.fromkeys(requests[p].expert.name for p in batch)),
                    requests=len(batch),
                    prompt_tokens=sum(a.response.usage.prompt_tokens for a in answers),
                    completion_tokens=sum(a.response.usage.completion_tokens for a in answers),
                    seconds=seconds,
                    load_seconds=load_seconds,
                    loaded=fresh,
                    started_at=started_at,
                ),
                experts,
                answers,
            )
            fresh, load_seconds = False, 0.0


async def _generate(engine: Engine, requests: Sequence[Request], base: str) -> Sequence[Outcome]:
    """One outcome a request, whatever the engine does."""
    try:
        outcomes = await engine.generate(requests)
        if len(outcomes) != len(requests):
            raise EngineError(
                f"engine of `{base}` gave {len(outcomes)} answers to {len(requests)} requests"
            )
    except Exception as error:
        return [_as_engine_error(error, base)] * len(requests)
    return outcomes


def _as_engine_error(error: Exception, base: str) -> EngineError:
    if isinstance(error, EngineError):
        return error
    wrapped = EngineError(f"`{base}` failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _abandon(columns: Iterable[_Column], error: BaseException) -> None:
    """Nobody may wait for ever for a wave that ended before its time."""
    for column in columns:
        if column.future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            column.future.cancel()
        else:
            column.future.set_exception(error)
