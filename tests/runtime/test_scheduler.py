"""The scheduler's promises (DESIGN.md, "The runtime"), on engines that fail, wait and misbehave."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

import pytest
from fakes import FAULTS, Fake, FakeHTTP, answer, prompt
from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.expert import Expert, Sampling
from swarm.agents.messages import Request, Response
from swarm.errors import EngineError, InputError, OutOfMemoryError, RequestError
from swarm.runtime.agenda import Agenda, Item
from swarm.runtime.cache import MemoryCache, Recorder
from swarm.runtime.residency import Residency
from swarm.runtime.scheduler import Scheduler

WELL = ("one", "two", "three")


def expert(model="one", engine="fake", name=None, **settings):
    settings.setdefault("sampling", Sampling(seed=sum(map(ord, name or ""))))
    return Expert(name=name or f"{engine}-{model}", engine=engine, model=model, **settings)


def run(work):
    """Nothing here may take long: what hangs is a deadlock."""

    async def guarded():
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(guarded())


@dataclass(frozen=True)
class Column:
    expert: Expert
    prompts: tuple[str, ...]
    draw: int

    def expected(self):
        """Text or error of each prompt, whatever else is asked at the same time."""
        told = FAULTS.get(self.expert.model)
        for text in self.prompts:
            if told is not None:
                yield EngineError, told
            else:
                outcome = answer(Request(self.expert, prompt(text), self.draw))
                yield type(outcome), getattr(outcome, "text", str(outcome))


@dataclass(frozen=True)
class Graph:
    """Steps of columns that are asked together; cancelled after so many turns of the loop."""

    steps: tuple[tuple[Column, ...], ...]
    cancelled: int | None

    @property
    def places(self):
        ends = list(accumulate(map(len, self.steps)))
        return [range(end - len(step), end) for end, step in zip(ends, self.steps, strict=True)]

    @property
    def agenda(self):
        """Every column comes after all of the step before."""
        before = [(), *map(tuple, self.places[:-1])]
        steps = zip(before, self.steps, strict=True)
        return Agenda([Item(column.expert, heard) for heard, step in steps for column in step])


EXPERTS = [
    expert(model, engine, name=f"{engine}-{model}-{k}")
    for engine in ("fake", "http")
    for model in (*WELL, *FAULTS)
    for k in range(2)
    if (engine, model) != ("http", "load")  # nothing is loaded there
]
columns = st.builds(
    Column,
    expert=st.sampled_from(EXPERTS),
    prompts=st.lists(st.sampled_from(["a", "b", "c", "bad d", "bad e"]), max_size=5).map(tuple),
    draw=st.integers(0, 1),
)
steps = st.lists(columns, min_size=1, max_size=3).map(tuple)
graphs = st.lists(
    st.builds(
        Graph,
        steps=st.lists(steps, min_size=1, max_size=3).map(tuple),
        cancelled=st.none() | st.integers(0, 25),
    ),
    min_size=1,
    max_size=4,
)


async def play(graph: Graph, scheduler: Scheduler, ready: asyncio.Event):
    """What a running graph does: asks a step's columns together, and waits for all of them."""
    with scheduler.join(graph.agenda) as participant:
        await ready.wait()
        return [
            await asyncio.gather(
                *(
                    scheduler.ask(
                        column.expert,
                        [prompt(text) for text in column.prompts],
                        draw=column.draw,
                        participant=participant,
                        item=item,
                    )
                    for item, column in zip(places, step, strict=True)
                )
            )
            for places, step in zip(graph.places, graph.steps, strict=True)
        ]


async def play_all(some: list[Graph], scheduler: Scheduler):
    """The answers of each graph, None where it was cancelled in time."""
    ready = asyncio.Event()
    tasks = [asyncio.create_task(play(graph, scheduler, ready)) for graph in some]
    await asyncio.sleep(0)
    ready.set()
    for turn in range(26):
        for graph, task in zip(some, tasks, strict=True):
            if graph.cancelled == turn:
                task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for graph, result in zip(some, results, strict=True):
        if isinstance(result, BaseException):
            assert graph.cancelled is not None, result
            assert isinstance(result, asyncio.CancelledError)
    return [None if isinstance(r, BaseException) else r for r in results]


def engines(limit: int, pause: int, batch: int):
    settings = {"limit": limit, "pause": pause, "batch": batch}
    return {"fake": Fake(**settings), "http": FakeHTTP(**settings)}


@given(graphs, st.integers(1, 3), st.integers(0, 4), st.integers(1, 4), st.booleans())
def test_every_request_gets_its_own_answer_whatever_came_along(some, limit, pause, batch, caches):
    fakes = engines(limit, pause, batch)

    async def work():
        recorder = MemoryCache() if caches else None
        scheduler = Scheduler(Residency(fakes, memory=limit), recorder)
        return await play_all(some, scheduler)

    for graph, answered in zip(some, run(work()), strict=True):
        if answered is None:
            continue
        for step, columns in zip(graph.steps, answered, strict=True):
            for column, answers in zip(step, columns, strict=True):
                expected = list(column.expected())
                assert len(answers.outcomes) == len(answers.cached) == len(expected)
                assert (answers.keys is not None) == caches
                for outcome, (kind, text) in zip(answers.outcomes, expected, strict=True):
                    assert isinstance(outcome, kind)
                    assert text in (outcome.text if kind is Response else str(outcome))


@given(graphs, st.integers(1, 3), st.integers(0, 3), st.integers(1, 4))
def test_what_is_known_or_asked_already_is_not_asked_again(some, limit, pause, batch):
    fakes = engines(limit, pause, batch)

    async def work():
        scheduler = Scheduler(Residency(fakes, memory=limit), MemoryCache())
        return await play_all(some, scheduler)

    answered = run(work())
    asked = Counter(
        request.key()
        for fake in fakes.values()
        for batch in fake.batches
        for request in batch
        if isinstance(answer(request), Response) and request.expert.model in WELL
    )
    assert set(asked.values()) <= {1}
    if all(graph.cancelled is None for graph in some):
        fresh = Counter(
            Request(column.expert, prompt(text), column.draw).key()
            for graph, steps in zip(some, answered, strict=True)
            for step, columns in zip(graph.steps, steps, strict=True)
            for column, answers in zip(step, columns, strict=True)
            for text, outcome, cached in zip(
                column.prompts, answers.outcomes, answers.cached, strict=True
            )
            if isinstance(outcome, Response) and not cached
        )
        assert fresh == asked


@given(graphs, st.integers(1, 3), st.integers(0, 3))
def test_a_base_is_loaded_at_most_once_a_wave(some, limit, pause):
    loads = Counter()

    class Counting(Fake):
        async def load(self, base, experts):
            loads[scheduler.waves, base] += base not in self.resident_now
            await super().load(base, experts)

    async def work():
        nonlocal scheduler
        fakes = engines(limit, pause, 3) | {"fake": Counting(limit=limit, pause=pause)}
        scheduler = Scheduler(Residency(fakes, memory=limit))
        await play_all(some, scheduler)

    scheduler = None
    run(work())
    assert max(loads.values(), default=0) <= 1


@given(graphs, st.integers(0, 3))
def test_graphs_meet_in_common_waves_where_all_models_fit(some, pause):
    resident = [
        Graph(
            tuple(
                tuple(c for c in step if c.expert.engine == "fake" and c.prompts) or (spare,)
                for step in graph.steps
            ),
            None,
        )
        for graph in some
        for spare in [Column(EXPERTS[0], ("a",), 0)]
    ]

    async def work():
        scheduler = Scheduler(Residency(engines(100, pause, 100), memory=100))
        await play_all(resident, scheduler)
        return scheduler.waves

    assert run(work()) == max(len(graph.steps) for graph in resident)


async def test_a_graph_that_joins_right_after_another_has_asked_is_waited_for():
    fake = Fake()
    scheduler = Scheduler(Residency({"fake": fake}))

    async def one(pause):
        with scheduler.join(Agenda([Item(expert())])) as participant:
            for _ in range(pause):
                await asyncio.sleep(0)
            await scheduler.ask(expert(), [prompt(pause)], participant=participant)

    async with asyncio.timeout(60):
        await asyncio.gather(one(0), one(5))
    assert scheduler.waves == 1


async def test_what_is_loaded_goes_first():
    fake = Fake()
    scheduler = Scheduler(Residency({"fake": fake}, memory=1))
    async with asyncio.timeout(60):
        await scheduler.ask(expert("two"), [prompt("x")])
        await asyncio.gather(*(scheduler.ask(expert(m), [prompt("y")]) for m in WELL))
    assert fake.loads[0] == "fake:two"
    assert sorted(fake.loads[1:]) == ["fake:one", "fake:three"]


async def test_the_least_recently_used_is_evicted():
    fake = Fake(limit=2)
    residency = Residency({"fake": fake}, memory=2)
    scheduler = Scheduler(residency)
    async with asyncio.timeout(60):
        for model in ("one", "two", "one", "three"):
            await scheduler.ask(expert(model), [prompt("x")])
    assert residency.loaded == ("fake:one", "fake:three")
    assert fake.loads == ["fake:one", "fake:two", "fake:three"]


async def test_a_base_that_fails_to_load_takes_no_room():
    fake = Fake(limit=1)
    residency = Residency({"fake": fake}, memory=1)
    scheduler = Scheduler(residency)
    async with asyncio.timeout(60):
        bad = await scheduler.ask(expert("load"), [prompt("x")])
        assert residency.loaded == ()
        assert fake.resident_now == set()
        good = await scheduler.ask(expert("one"), [prompt("x")])
    assert isinstance(bad.outcomes[0], OutOfMemoryError)
    assert isinstance(good.outcomes[0], Response)


async def test_a_base_that_cannot_be_unloaded_still_counts():
    class Stuck(Fake):
        async def unload(self, base):
            raise RuntimeError("held")

    residency = Residency({"fake": Stuck()}, memory=1)
    scheduler = Scheduler(residency)
    async with asyncio.timeout(60):
        await scheduler.ask(expert("one"), [prompt("x")])
        two = await scheduler.ask(expert("two"), [prompt("x")])
    assert "RuntimeError: held" in str(two.outcomes[0])
    assert residency.loaded == ("fake:one",)


def test_no_room_for_any_base_is_refused():
    with pytest.raises(InputError, match="`memory` is 0: at least 1 model"):
        Residency(memory=0)


async def test_a_wave_ends_when_nobody_waits_for_it_any_more():
    fake = Fake(batch=1, pause=5)
    scheduler = Scheduler(Residency({"fake": fake}))
    task = asyncio.create_task(scheduler.ask(expert(), [prompt(i) for i in range(50)]))
    while not fake.batches:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(60):
        assert isinstance((await scheduler.ask(expert(), [prompt("x")])).outcomes[0], Response)
    assert len(fake.batches) < 5


async def test_a_column_that_is_cancelled_before_its_wave_is_not_asked():
    fake = Fake()
    scheduler = Scheduler(Residency({"fake": fake}))
    with scheduler.join(Agenda([Item(expert())] * 2)) as participant:
        task = asyncio.create_task(scheduler.ask(expert(), [prompt("x")], participant=participant))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(60):
        await scheduler.ask(expert(), [prompt("y")])
    assert [request.messages for [request] in fake.batches] == [prompt("y")]


async def test_who_asks_an_http_engine_for_the_same_at_once_shares_one_request():
    fake = FakeHTTP(pause=10)
    scheduler = Scheduler(Residency({"http": fake}))
    first, second, third = (
        asyncio.create_task(scheduler.ask(expert(engine="http"), [prompt(p) for p in prompts]))
        for prompts in ("ab", "bc", "ca")
    )
    async with asyncio.timeout(60):
        await asyncio.gather(first, second, third)
    assert set(fake.asked.values()) == {1}
    assert [t.result().cached for t in (first, second, third)] == [
        [False, False],
        [True, False],
        [True, True],
    ]


async def test_a_shared_request_outlives_the_one_who_asked_first():
    fake = FakeHTTP(pause=10)
    scheduler = Scheduler(Residency({"http": fake}))
    first = asyncio.create_task(scheduler.ask(expert(engine="http"), [prompt("x")]))
    second = asyncio.create_task(scheduler.ask(expert(engine="http"), [prompt("x")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(60):
        assert isinstance((await second).outcomes[0], Response)


async def test_http_requests_do_not_wait_for_waves():
    fake, http = Fake(), FakeHTTP()
    scheduler = Scheduler(Residency({"fake": fake, "http": http}))
    # A graph that asks nothing for now holds up every wave.
    with scheduler.join(Agenda([Item(expert())])):
        waiting = asyncio.create_task(scheduler.ask(expert(), [prompt("x")]))
        async with asyncio.timeout(60):
            await scheduler.ask(expert(engine="http"), [prompt("x")])
        assert not waiting.done()
    async with asyncio.timeout(60):
        await waiting


class Broken(Recorder):
    """A store whose disk is full."""

    def __init__(self, where):
        self.where = where

    def known(self, keys):
        if self.where == "known":
            raise OSError("disk full")
        return {}

    def record(self, batch, experts, answers):
        raise OSError("disk full")


@pytest.mark.parametrize("engine", ["fake", "http"])
@pytest.mark.parametrize("where", ["known", "record"])
async def test_a_store_that_fails_is_no_matter_of_one_request(engine, where, caplog):
    scheduler = Scheduler(Residency(engines(1, 0, 10)), Broken(where))
    async with asyncio.timeout(60):
        asks = (scheduler.ask(expert(engine=engine, model=m), [prompt("x")]) for m in WELL)
        for result in await asyncio.gather(*asks, return_exceptions=True):
            assert isinstance(result, OSError)
        del asks, result
    gc.collect()
    assert not caplog.records  # nothing of errors that nobody looked at


async def test_batches_are_recorded_as_they_are_answered():
    class Log(MemoryCache):
        def __init__(self):
            super().__init__()
            self.log = []

        def record(self, batch, experts, answers):
            super().record(batch, experts, answers)
            self.log.append((batch, [a.response for a in answers], {a.key for a in answers}))

    log = Log()
    scheduler = Scheduler(Residency({"fake": Fake(batch=2)}), log)
    async with asyncio.timeout(60):
        answers = await scheduler.ask(expert(), [prompt(p) for p in ("a", "bad b", "c", "d")])
    assert [batch.requests for batch, _, _ in log.log] == [2, 2]
    assert [batch.loaded for batch, _, _ in log.log] == [True, False]
    assert all(batch.wave == 1 and batch.base == "fake:one" for batch, _, _ in log.log)
    assert sum(batch.completion_tokens for batch, _, _ in log.log) == sum(
        o.usage.completion_tokens for o in answers.outcomes if isinstance(o, Response)
    )
    recorded = set().union(*(keys for _, _, keys in log.log))
    for key, outcome in zip(answers.keys, answers.outcomes, strict=True):
        assert (key in recorded) == isinstance(outcome, Response)


async def test_a_failure_is_asked_again_another_time():
    fake = Fake()
    scheduler = Scheduler(Residency({"fake": fake}), MemoryCache())
    async with asyncio.timeout(60):
        for _ in range(2):
            answers = await scheduler.ask(expert(), [prompt("bad")])
            assert isinstance(answers.outcomes[0], RequestError)
            assert answers.cached == [False]
    assert sum(fake.asked.values()) == 2


async def test_experts_of_one_name_or_model_are_told_apart_by_what_they_answer():
    fake = Fake()
    scheduler = Scheduler(Residency({"fake": fake}), MemoryCache())
    same = [expert(name="a"), expert(name="a", sampling=Sampling(temperature=1))]
    async with asyncio.timeout(60):
        await asyncio.gather(*(scheduler.ask(e, [prompt("x")]) for e in same))
        await scheduler.ask(same[1], [prompt("x")], draw=1)
    assert len(fake.asked) == 3


def test_event_loops_of_several_threads_take_turns():
    """As the nodes of a LangGraph program do that is called from synchronous code."""
    from concurrent.futures import ThreadPoolExecutor

    fake = Fake(limit=1, pause=3)
    residency = Residency({"fake": fake}, memory=1)

    def one(i):
        async def work():
            scheduler = Scheduler(residency)
            return await scheduler.ask(expert(WELL[i % 3]), [prompt(i)])

        return run(work())

    with ThreadPoolExecutor(8) as threads:
        for i, answers in enumerate(threads.map(one, range(24))):
            assert answers.outcomes == [answer(Request(expert(WELL[i % 3]), prompt(i)))]


class Together(MemoryCache):
    """Counts what is kept at once."""

    def __init__(self):
        super().__init__()
        self.transactions = []

    def record_all(self, answered):
        self.transactions.append(len(answered))
        super().record_all(answered)


async def test_what_servers_answer_is_kept_together_and_before_it_is_used():
    recorder = Together()
    scheduler = Scheduler(Residency({"http": FakeHTTP(pause=3)}), recorder)

    async def ask(i):
        for step in range(3):
            answers = await scheduler.ask(expert(engine="http"), [prompt(f"{i}, {step}")])
            assert recorder.known(answers.keys)

    async with asyncio.timeout(60):
        await asyncio.gather(*(ask(i) for i in range(30)))
    assert sum(recorder.transactions) == 90
    assert len(recorder.transactions) < 30


async def test_what_was_answered_is_kept_though_nobody_waits_any_more():
    recorder = Together()
    engine = FakeHTTP()
    scheduler = Scheduler(Residency({"http": engine}), recorder)
    slow = FakeHTTP(pause=10**6)  # so that there is something to wait for
    scheduler.residency._engines["slow"] = slow
    tasks = [
        asyncio.create_task(scheduler.ask(expert(engine=name), [prompt("x")]))
        for name in ("slow", "http")
    ]
    async with asyncio.timeout(60):
        while not engine.batches or scheduler._on_their_way > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for task in [*tasks, *scheduler._direct]:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert recorder.transactions == [1]
