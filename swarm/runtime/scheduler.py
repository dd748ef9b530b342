"""Where calls meet: columns of requests become waves of batches, one base model after the other.

Every agent of every running graph hands in a column of prompts and waits. When everything that runs
is waiting, a wave starts: what is known is answered from the cache, what was asked twice is asked
once, and the rest is grouped by base model and run, loaded bases first.

If all models fit that are wanted now and later, a wave asks every base that somebody waits for. If
they do not, it asks one and is over: the answers let graphs go on, and what they then want of a
loaded base is asked before another is loaded. Which one that is, and what is evicted for it, is
planned from what the running graphs have yet to ask (`swarm.runtime.planning`). While the device
works on one base, the weights of the next are read into host memory.

Promises (DESIGN.md): every request gets exactly one response or one error; a base is loaded at most
once a wave; never more bases are loaded than the residency allows; a failing request fails itself
only; cancelling one who waits takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from itertools import chain, repeat
from types import TracebackType
from typing import Any, TypeVar

from swarm.agents.engines import Engine
from swarm.agents.expert import Expert
from swarm.agents.messages import Messages, Request, Response, leaves, request_key
from swarm.errors import EngineError
from swarm.runtime.agenda import Agenda
from swarm.runtime.cache import Answered, Recorder
from swarm.runtime.columns import Added, Answers, Column, Group, Outcome, Say
from swarm.runtime.load_order import LoadOrder, Pending, Turn
from swarm.runtime.residency import Loaded, Residency
from swarm.store.records import AnswerRecord, BatchRecord

KEPT_WITHIN = 0.05
"""Seconds in which answers that need not wait for a wave are gathered, to be kept together: a
transaction for each column would take as long as the column's requests do."""

T = TypeVar("T")


class Participant:
    """One graph on its way: tells the scheduler what it will hand in, and after which answers.

    A context manager; the scheduler waits for it from enter to exit.
    """

    def __init__(self, scheduler: Scheduler, agenda: Agenda) -> None:
        self.agenda = agenda
        self.answered = 0
        """The items that are, as a mask."""
        self.cancelled = False
        """Whether a column was cancelled, so that what comes after it will never be asked."""
        self._scheduler = scheduler
        self._missing = [mask.bit_count() for mask in agenda.before]
        """Of each item: how many answers it still needs."""
        self._open = self._missing.count(0)
        """How many items could be handed in, and are not yet."""

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
        return self._open == 0

    def _ask(self) -> None:
        self._open -= 1

    def _answer(self, item: int) -> None:
        self.answered |= 1 << item
        for follower in self.agenda.followers[item]:
            self._missing[follower] -= 1
            self._open += self._missing[follower] == 0


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
        self._arrived: list[Column] = []
        """What has been handed in since the last wave began."""
        self._groups: dict[tuple[bytes, int], Group] = {}
        """What has been looked up and waits for its base, by expert and draw."""
        self._participants: set[Participant] = set()
        self._order = LoadOrder(residency)
        self._checked: set[frozenset[tuple[str, str | None]]] = set()
        self._running: asyncio.Task[None] | None = None
        self._direct: set[asyncio.Task[None]] = set()
        self._in_flight: dict[tuple[Any, ...], asyncio.Future[Outcome]] = {}
        self._on_their_way = 0
        """How many batches of engines that need not wait for a wave are being asked for."""
        self._unkept: list[tuple[Answered, asyncio.Future[None]]] = []
        """What is still to be kept, and who waits for that."""
        self._keeping: asyncio.TimerHandle | None = None

    def join(self, agenda: Agenda) -> Participant:
        """A graph that will ask this; enter what this returns while it runs.

        Raises:
            InputError: it wants a model that there is no room for (`Residency.check`).
        """
        if agenda.models not in self._checked:
            self.residency.check(item.expert for item in agenda.items)
            self._checked.add(agenda.models)
        return Participant(self, agenda)

    async def ask(
        self,
        expert: Expert,
        prompts: Sequence[Messages],
        *,
        draw: int = 0,
        participant: Participant | None = None,
        item: int = 0,
        say: Say | None = None,
    ) -> Answers:
        """One outcome a prompt, in their order. Errors are returned, not raised.

        `item` says which of the participant's agenda this is. `say` is for a single prompt. It is
        told nothing if the answer does not come in pieces: if it is known, another asked the same,
        or its engine answers wave by wave.
        """
        loop = asyncio.get_running_loop()
        column = Column(expert, prompts, draw, participant, item, loop.create_future(), say)
        resident = self.residency.engine(expert.engine).resident
        if participant is not None:
            participant._ask()
        if resident:
            self._arrived.append(column)
        else:
            task = loop.create_task(self._run_directly(column))
            self._direct.add(task)
            task.add_done_callback(self._end_direct)
        self._consider()
        try:
            return await column.future
        except asyncio.CancelledError:
            if participant is not None:
                participant.cancelled = True
            raise

    def _consider(self) -> None:
        """Starts a wave if everything that runs is waiting."""
        if self._running is None and self._everyone_waits():
            self._running = asyncio.get_running_loop().create_task(self._run_wave())
            self._running.add_done_callback(self._end_wave)

    def _everyone_waits(self) -> bool:
        pending = any(group.wanted() for group in self._groups.values()) or not all(
            column.future.done() for column in self._arrived
        )
        return pending and all(p.waiting for p in self._participants)

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
        try:
            self._collect()
            if not self._everyone_waits():
                return  # what was known lets somebody go on, who may want more of the same bases
            self.waves += 1
            bases: dict[str, list[Group]] = defaultdict(list)
            for group in self._groups.values():
                bases[group.expert.base].append(group)
            going = [graph for graph in self._participants if not graph.cancelled]
            for turn in self._order.choose(self._pending(bases), going):
                await self._run_base(turn, bases[turn.base])
        except BaseException as error:
            waiting = chain.from_iterable(group.columns for group in self._groups.values())
            _abandon(list(waiting), error)
            self._groups.clear()
            raise

    def _collect(self) -> None:
        """Puts what has arrived into groups, and answers what is known."""
        arrived, self._arrived = self._arrived, []
        new: list[Added] = []
        try:
            for name in [name for name, group in self._groups.items() if not group.wanted()]:
                del self._groups[name]
            for column in arrived:
                if column.future.done():  # cancelled before its wave
                    continue
                name = column.expert.fingerprint, column.draw
                if name not in self._groups:
                    self._groups[name] = Group(column, spare=self.spare)
                new.append(self._groups[name].add(column))
            self._look_up(new)
            for name in {(added.group.expert.fingerprint, added.group.draw): None for added in new}:
                self._groups[name].settle(known=True)
                if not self._groups[name].columns:
                    del self._groups[name]
        except BaseException as error:
            _abandon(arrived, error)
            raise

    def _pending(self, bases: Mapping[str, Sequence[Group]]) -> dict[str, Pending]:
        found = {}
        for base, groups in bases.items():
            columns = [column for group in groups for column in group.columns]
            found[base] = Pending(
                [group.expert for group in groups],
                sum(len(column.prompts) for column in columns),
                any(column.participant not in self._participants for column in columns),
            )
        return found

    async def _run_base(self, turn: Turn, groups: Sequence[Group]) -> None:
        await self._answer(
            turn,
            [(group, group.missing()) for group in groups],
            wanted=lambda: any(group.wanted() for group in groups),
        )
        for group in groups:
            del self._groups[group.expert.fingerprint, group.draw]
            self.shared += group.settle()

    async def _run_directly(self, column: Column) -> None:
        """Answers a column of an engine that need not wait for a wave."""
        group = Group(column, spare=self.spare)
        mine: dict[int, tuple[Any, ...]] = {}
        others: dict[int, asyncio.Future[Outcome]] = {}
        try:
            self._look_up([group.add(column)])
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
                await self._answer(Turn(group.expert.base), [(group, list(mine))], say=column.say)
        except BaseException as error:
            _abandon([column], error)
            raise
        finally:  # before waiting for others, who may be waiting for this one
            for i, name in mine.items():
                self._in_flight.pop(name).set_result(group.outcomes[i] or _given_up())
        for i, future in others.items():
            group.outcomes[i] = await future
        self.shared += group.settle() + len(others)

    def _look_up(self, new: Sequence[Added]) -> None:
        """Fills in keys, and the outcomes that are known, of what groups have taken in."""
        if self.recorder is None:
            return
        fresh: list[tuple[Group, int, bytes]] = []
        for group, positions, _ in new:
            fingerprint, draw = group.expert.fingerprint, group.draw
            prompts = group.prompts[positions.start : positions.stop]
            keys = [request_key(fingerprint, prompt, draw) for prompt in prompts]
            group.keys = [*(group.keys or ()), *keys]
            fresh += zip(repeat(group), positions, keys)
        if not self.spare or not fresh:
            return
        known = self.recorder.known([key for _, _, key in fresh])
        if known:
            for group, i, key in fresh:
                group.outcomes[i] = known.get(key)
            for group, _, places in new:
                self.known += sum(group.outcomes[i] is not None for i in places)

    async def _answer(
        self,
        turn: Turn,
        asks: Sequence[tuple[Group, Sequence[int]]],
        wanted: Callable[[], bool] = lambda: True,
        say: Say | None = None,
    ) -> None:
        """Asks for these positions of these groups, all of the turn's base, and fills in outcomes.

        Goes on from batch to batch as long as `wanted` says that somebody waits for them, and the
        recorder lets them be asked.
        """
        base = turn.base
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
                loaded = await _call(base, self.residency.acquire(base, experts, turn.evict))
                batches = await _call(base, _plan(engine, requests))
            except EngineError as error:
                outcomes, batches = [error] * len(requests), []
            if turn.ahead:
                self.residency.prefetch(turn.ahead[0].base, turn.ahead)
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
                if any(isinstance(answer, EngineError) for answer in answers):
                    for expert in experts:
                        engine.require(expert)  # what was there at first may have gone
                loaded = Loaded()  # the first batch bears the load
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
                load_bytes=loaded.bytes,
                prefetched=loaded.prefetched,
                evicted=loaded.evicted,
                evict_seconds=loaded.evict_seconds,
                seedless=any(record.response.seedless for record in answered),
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


def _abandon(columns: Iterable[Column], error: BaseException) -> None:
    """Nobody may wait for ever for a wave that ended before its time."""
    for column in columns:
        if column.future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            column.future.cancel()
        else:
            column.future.set_exception(error)
