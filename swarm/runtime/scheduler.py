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
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, repeat
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from swarm.agents.engines import Engine
from swarm.agents.expert import Expert
from swarm.agents.messages import Messages, Request, Response, leaves, request_key
from swarm.errors import EngineError
from swarm.runtime.cache import Answered, Recorder
from swarm.runtime.residency import Loaded, Residency
from swarm.store.records import AnswerRecord, BatchRecord

Say = Callable[[str], None]
"""Is told pieces of an answer as they are written."""

KEPT_WITHIN = 0.05
"""Seconds in which answers that need not wait for a wave are gathered, to be kept together: a
transaction for each column would take as long as the column's requests do."""

Outcome = Response | EngineError
T = TypeVar("T")


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
    """A column of prompts for one expert, and who waits for its answers."""

    expert: Expert
    prompts: Sequence[Messages]
    draw: int
    participant: Participant | None
    future: asyncio.Future[Answers]
    say: Say | None = None

    def settle(self, answers: Answers) -> None:
        if self.participant is not None:
            self.participant._answer()
        if not self.future.done():  # whoever waited may have been cancelled
            self.future.set_result(answers)


class _Group:
    """Columns that want the same of the same expert: every prompt once."""

    def __init__(self, columns: Sequence[_Column], *, spare: bool = True) -> None:
        """Without `spare`, what is wanted twice is asked twice."""
        self.columns = columns
        self.expert = columns[0].expert
        self.draw = columns[0].draw
        index: dict[Any, int] = {}
        self._places = [
            [
                index.setdefault(prompt if spare else (prompt, len(index)), len(index))
                for prompt in column.prompts
            ]
            for column in columns
        ]
        self.prompts: list[Messages] = list(index) if spare else [prompt for prompt, _ in index]
        self.keys: list[bytes] | None = None
        """Content addresses of `prompts`; None where nothing is recorded."""
        self.outcomes: list[Outcome | None] = [None] * len(index)
        """Of `prompts`; None: not known yet."""
        self.asked: set[int] = set()
        """Positions for which a request was made."""

    def missing(self) -> list[int]:
        """Positions whose outcome is not known yet."""
        return [i for i, outcome in enumerate(self.outcomes) if outcome is None]

    def known(self) -> int:
        """How many calls want what is known."""
        outcomes = self.outcomes
        return sum(outcomes[i] is not None for places in self._places for i in places)

    def settle(self) -> int:
        """Answers every column. The first that wanted a prompt counts as the one who asked; returns
        how many others wanted the same."""
        asked = self.asked
        wanted = sum(i in asked for places in self._places for i in places) - len(asked)
        for column, places in zip(self.columns, self._places, strict=True):
            outcomes: list[Any] = [self.outcomes[i] for i in places]
            keys = None if self.keys is None else [self.keys[i] for i in places]
            cached = []
            for i in places:
                cached.append(i not in asked)
                asked.discard(i)
            column.settle(Answers(outcomes, keys, cached))
        return wanted


class Scheduler:
    """Runs on one event loop; all methods must be called from it.

    Args:
        residency: the engines and what is loaded on them.
        recorder: where answers are looked up and kept; None remembers nothing.
        spare: False asks for everything, what is known and what is asked twice, too.
    """

    def __init__(
        self, residency: Residency, recorder: Recorder | None = None, *, spare: bool = True
    ) -> None:
        self.residency = residency
        self.recorder = recorder
        self.spare = spare
        self.waves = 0
        """How many waves have run."""
        self.asked = 0
        """How many requests engines have answered."""
        self.known = 0
        """How many calls were answered from the record."""
        self.shared = 0
        """How many calls were answered by what another call had asked in the same wave."""
        self._pending: list[_Column] = []
        self._participants: set[Participant] = set()
        self._running: asyncio.Task[None] | None = None
        self._direct: set[asyncio.Task[None]] = set()
        self._in_flight: dict[tuple[Any, ...], asyncio.Future[Outcome]] = {}
        self._on_their_way = 0
        """How many batches of engines that need not wait for a wave are being asked for."""
        self._unkept: list[tuple[Answered, asyncio.Future[None]]] = []
        """What is still to be kept, and who waits for that."""
        self._keeping: asyncio.TimerHandle | None = None

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
        say: Say | None = None,
    ) -> Answers:
        """One outcome a prompt, in their order. Errors are returned, not raised.

        `say` is for a single prompt. It is told nothing if the answer does not come in pieces: if
        it is known, another asked the same, or its engine answers wave by wave.
        """
        loop = asyncio.get_running_loop()
        column = _Column(expert, prompts, draw, participant, loop.create_future(), say)
        resident = self.residency.engine(expert.engine).resident
        if participant is not None:
            participant._ask()
        if resident:
            self._pending.append(column)
        else:
            task = loop.create_task(self._run_directly(column))
            self._direct.add(task)
            task.add_done_callback(self._end_direct)
        self._consider()
        try:
            return await column.future
        finally:
            if column in self._pending:  # cancelled before its wave
                self._pending.remove(column)

    def _consider(self) -> None:
        """Starts a wave if everything that runs is waiting."""
        if self._running is None and self._everyone_waits():
            self._running = asyncio.get_running_loop().create_task(self._run_wave())
            self._running.add_done_callback(self._end_wave)

    def _everyone_waits(self) -> bool:
        return bool(self._pending) and all(p.waiting for p in self._participants)

    def _end_wave(self, task: asyncio.Task[None]) -> None:
        self._running = None
        _seen(task)
        self._consider()

    def _end_direct(self, task: asyncio.Task[None]) -> None:
        self._direct.discard(task)
        _seen(task)

    async def _run_wave(self) -> None:
        if not self._everyone_waits():
            return  # somebody joined between the decision and this task's turn
        columns, self._pending = self._pending, []
        self.waves += 1
        alike: dict[tuple[bytes, int], list[_Column]] = defaultdict(list)
        for column in columns:
            alike[column.expert.fingerprint, column.draw].append(column)
        try:
            groups = [_Group(same, spare=self.spare) for same in alike.values()]
            self._look_up(groups)
            bases: dict[str, list[_Group]] = defaultdict(list)
            for group in groups:
                if None in group.outcomes:
                    bases[group.expert.base].append(group)
                else:
                    group.settle()
            loaded = self.residency.loaded
            for base in sorted(bases, key=lambda base: (base not in loaded, base)):
                await self._run_base(base, bases[base])
        except BaseException as error:
            _abandon(columns, error)
            raise

    async def _run_base(self, base: str, groups: Sequence[_Group]) -> None:
        waiting = [column.future for group in groups for column in group.columns]
        await self._answer(
            base,
            [(group, group.missing()) for group in groups],
            wanted=lambda: not all(future.done() for future in waiting),
        )
        for group in groups:
            self.shared += group.settle()

    async def _run_directly(self, column: _Column) -> None:
        """Answers a column of an engine that need not wait for a wave."""
        group = _Group([column], spare=self.spare)
        mine: dict[int, tuple[Any, ...]] = {}
        others: dict[int, asyncio.Future[Outcome]] = {}
        try:
            self._look_up([group])
            for i in group.missing():
                name: tuple[Any, ...] = (group.expert.fingerprint, group.draw, group.prompts[i])
                if not self.spare:
                    name = (*name, i, id(group))
                if name in self._in_flight:
                    others[i] = self._in_flight[name]
                else:
                    self._in_flight[name] = column.future.get_loop().create_future()
                    mine[i] = name
            if mine:
                await self._answer(group.expert.base, [(group, list(mine))], say=column.say)
        except BaseException as error:
            _abandon([column], error)
            raise
        finally:  # before waiting for others, who may be waiting for this one
            for i, name in mine.items():
                self._in_flight.pop(name).set_result(group.outcomes[i] or _given_up())
        for i, future in others.items():
            group.outcomes[i] = await future
        self.shared += group.settle() + len(others)

    def _look_up(self, groups: Sequence[_Group]) -> None:
        """Fills in keys, and the outcomes that are known."""
        if self.recorder is None:
            return
        for group in groups:
            fingerprint, draw = group.expert.fingerprint, group.draw
            group.keys = [request_key(fingerprint, prompt, draw) for prompt in group.prompts]
        if not self.spare:
            return
        known = self.recorder.known([key for group in groups for key in group.keys or ()])
        if known:
            for group in groups:
                group.outcomes = [known.get(key) for key in group.keys or ()]
                self.known += group.known()

    async def _answer(
        self,
        base: str,
        asks: Sequence[tuple[_Group, Sequence[int]]],
        wanted: Callable[[], bool] = lambda: True,
        say: Say | None = None,
    ) -> None:
        """Asks for these positions of these groups, all of one base, and fills in the outcomes.

        Goes on from batch to batch as long as `wanted` says that somebody waits for them, and the
        recorder lets them be asked.
        """
        experts = [group.expert for group, _ in asks]
        requests: list[Request] = []
        for group, places in asks:
            prompts = [group.prompts[i] for i in places]
            requests += leaves(Request, repeat(group.expert), prompts, repeat(group.draw))
        keys = [group.keys[i] for group, places in asks if group.keys for i in places]
        outcomes: list[Outcome] = [_given_up()] * len(requests)
        async with self._asking(requests[:1]):
            pass  # nothing is loaded for what may not be asked
        async with self.residency.turn(experts[0].engine) as engine:
            for expert in experts:
                engine.require(expert)
            try:
                loaded = await _call(base, self.residency.acquire(base, experts))
                batches = await _call(base, _plan(engine, requests))
            except EngineError as error:
                outcomes, batches = [error] * len(requests), []
            left = deque(batches)
            while left and wanted():
                batch = left.popleft()
                async with self._asking([requests[i] for i in batch]) as allowed:
                    if allowed < len(batch):
                        left.appendleft(batch[allowed:])
                        batch = batch[:allowed]
                    asked, named = [requests[i] for i in batch], [keys[i] for i in batch if keys]
                    answers = await self._ask(engine, experts, asked, named, loaded, say)
                for i, answer in zip(batch, answers, strict=True):
                    outcomes[i] = answer
                loaded = Loaded(fresh=False, seconds=0.0)  # the first batch bears the load
        filled = iter(outcomes)
        for group, places in asks:
            for i in places:
                group.outcomes[i] = next(filled)
            group.asked.update(places)

    async def _ask(
        self,
        engine: Engine,
        experts: Sequence[Expert],
        requests: Sequence[Request],
        keys: Sequence[bytes],
        loaded: Loaded,
        say: Say | None,
    ) -> Sequence[Outcome]:
        """Asks for one batch, and keeps what is answered; `keys` if there is where."""
        base = experts[0].base
        started_at, clock = datetime.now(UTC), time.perf_counter()
        self._on_their_way += not engine.resident
        try:
            work = _generate(engine, requests) if say is None else _say(engine, requests, say)
            answers = await _call(base, work)
        except EngineError as error:
            answers = [error] * len(requests)
        finally:
            self._on_their_way -= not engine.resident
        seconds = time.perf_counter() - clock
        self.asked += len(requests)
        if self.recorder is not None:
            answered = _answer_records(keys, requests, answers)
            usages = [record.response.usage for record in answered]
            done = BatchRecord(
                wave=self.waves,
                base=base,
                experts=tuple({request.expert.name: None for request in requests}),
                requests=len(requests),
                prompt_tokens=sum(usage.prompt_tokens for usage in usages),
                completion_tokens=sum(usage.completion_tokens for usage in usages),
                seconds=seconds,
                load_seconds=loaded.seconds,
                loaded=loaded.fresh,
                started_at=started_at,
            )
            if engine.resident:
                self.recorder.record(done, experts, answered)
            else:
                await self._keep(done, experts, answered)
        return answers

    async def _keep(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        """Records a batch with those that are answered about the same time. When this returns its
        answers are safe; they are not used before."""
        loop = asyncio.get_running_loop()
        kept = loop.create_future()
        self._unkept.append(((batch, experts, answers), kept))
        if not self._on_their_way:  # there is nothing to wait for
            self._keep_all()
        elif self._keeping is None:
            self._keeping = loop.call_later(KEPT_WITHIN, self._keep_all)
        try:
            await asyncio.shield(kept)
        except asyncio.CancelledError:
            self._keep_all()  # what was answered is not lost, even if the loop ends now
            raise

    def _keep_all(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        unkept, self._unkept, self._keeping = self._unkept, [], None
        if not unkept:
            return
        assert self.recorder is not None
        try:
            self.recorder.record_all([answered for answered, _ in unkept])
        except BaseException as error:
            for _, kept in unkept:
                kept.set_exception(error)
                kept.exception()  # whoever waits sees it; nobody may
            if not isinstance(error, Exception):
                raise
        else:
            for _, kept in unkept:
                kept.set_result(None)

    def _asking(self, requests: Sequence[Request]) -> AbstractAsyncContextManager[int]:
        if self.recorder is None:
            return nullcontext(len(requests))
        return self.recorder.asking(requests)


def _answer_records(
    keys: Sequence[bytes], requests: Sequence[Request], answers: Sequence[Outcome]
) -> list[AnswerRecord]:
    return [
        AnswerRecord(key, request.expert.fingerprint, request.messages, request.draw, answer)
        for key, request, answer in zip(keys, requests, answers, strict=True)
        if isinstance(answer, Response)
    ]


async def _plan(engine: Engine, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
    batches = await engine.plan(requests)
    if sorted(chain.from_iterable(batches)) != list(range(len(requests))):
        raise EngineError(
            f"`{type(engine).__name__}.plan` must name each of {len(requests)} requests once"
        )
    return batches


async def _generate(engine: Engine, requests: Sequence[Request]) -> Sequence[Outcome]:
    answers = await engine.generate(requests)
    if len(answers) != len(requests):
        raise EngineError(f"{len(answers)} answers to {len(requests)} requests")
    for kind in set(map(type, answers)):
        if not issubclass(kind, Response | EngineError):
            raise EngineError(f"an answer must be a `Response` or an error, not `{kind.__name__}`")
    return answers


async def _say(engine: Engine, requests: Sequence[Request], say: Say) -> Sequence[Outcome]:
    """The answer to a single request, told as it comes."""
    [request] = requests
    whole: Response | None = None
    steps = engine.stream(request)
    try:
        async for step in steps:
            if isinstance(step, str):
                say(step)
            else:
                whole = step
    finally:
        if isinstance(steps, AsyncGenerator):
            await steps.aclose()
    if whole is None:
        raise EngineError(f"`{type(engine).__name__}.stream` ended without a whole answer")
    return [whole]


async def _call(base: str, work: Awaitable[T]) -> T:
    """What an engine does, with whatever it raises as an `EngineError`."""
    try:
        return await work
    except EngineError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise EngineError(f"`{base}` failed: it cancelled its own work") from error
    except Exception as error:
        raise EngineError(f"`{base}` failed: {type(error).__name__}: {error}") from error


def _seen(task: asyncio.Task[None]) -> None:
    """Keeps asyncio from complaining of an error that those who waited have been given."""
    if not task.cancelled():
        task.exception()


def _given_up() -> EngineError:
    return EngineError("the request was given up before it was answered")


def _abandon(columns: Iterable[_Column], error: BaseException) -> None:
    """Nobody may wait for ever for a wave that ended before its time."""
    for column in columns:
        if column.future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            column.future.cancel()
        else:
            column.future.set_exception(error)
