"""Memory is kept to, loads are planned, and neither changes an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC
from zlib import crc32

import pytest
from fakes import Fake, answer, prompt
from hypothesis import given, settings
from hypothesis import strategies as st

import swarm
from swarm.agents.expert import Expert
from swarm.agents.memory import Memory, Room, shown
from swarm.agents.messages import Request, Response
from swarm.errors import EngineError, InputError
from swarm.graphs import AgentGraph
from swarm.runtime.agenda import Agenda, Item, bits
from swarm.runtime.cache import MemoryCache
from swarm.runtime.compile import resolve
from swarm.runtime.planning import Model, Problem, plan
from swarm.runtime.program import Program
from swarm.runtime.residency import Residency
from swarm.runtime.scheduler import Scheduler

MODELS = [f"m{k}" for k in range(6)]


def expert(model, name=None, **options):
    return Expert(name=name or model, engine="fake", model=model, options=options)


class Sized(Fake):
    """Bases of certain sizes, on devices that may hold so much and never more."""

    def __init__(self, sizes=None, room=None, reads="well", **how):
        super().__init__(limit=10**6, **how)
        self.sizes = sizes or {}
        self.room = room or Room(models=1)
        self.reads = reads
        self.ahead = None
        self.prefetched: list[str] = []

    def size(self, base, experts):
        assert {e.base for e in experts} == {base}
        return self.sizes.get(base.removeprefix("fake:"))

    async def load(self, base, experts):
        new = self.resident_now | {base}
        assert self.room.holds([self.size(b, [expert(b[5:])]) for b in new]), "over budget"
        if self.ahead == base:
            self.ahead = None
        await super().load(base, experts)

    async def prefetch(self, base, experts):
        assert base not in self.resident_now
        self.ahead = base
        self.prefetched.append(base)
        for _ in range(3 if self.reads == "slowly" else 0):
            await asyncio.sleep(0)
        if self.reads == "badly":
            raise OSError("no such disk")
        if self.reads == "for ever":
            await asyncio.sleep(3600)
        return self.reads != "not"

    def forget(self):
        self.ahead = None


@st.composite
def agendas(draw, most=8):
    """A random DAG whose last item comes after all others, as a graph's end node does."""
    count = draw(st.integers(1, most))
    items = []
    for k in range(count):
        heard = draw(st.sets(st.integers(0, k - 1), max_size=3)) if k else set()
        items.append(Item(expert(draw(st.sampled_from(MODELS))), tuple(sorted(heard))))
    return Agenda(items)


groups = st.lists(agendas(), min_size=1, max_size=5)
sizes = st.fixed_dictionaries({model: st.integers(0, 4) for model in MODELS})


def by_waves(some, room):
    """Loads of the scheduler that waits for everything after each wave, and evicts what was used
    longest ago: every base of a wave once, loaded ones first."""
    done = [0] * len(some)
    used: list[str] = []
    loads = 0
    while any(d != a.all for a, d in zip(some, done, strict=True)):
        ready = [a.ready(d) for a, d in zip(some, done, strict=True)]
        bases = {a.bases[i] for a, r in zip(some, ready, strict=True) for i in bits(r)}
        for base in sorted(bases, key=lambda base: (base not in used, base)):
            if base in used:
                used.remove(base)
            else:
                loads += 1
                used = used[len(used) + 1 - room :] if len(used) >= room else used
            used.append(base)
        done = [d | r for d, r in zip(done, ready, strict=True)]
    return loads


def walk(some, steps, models, room):
    """Follows a plan; returns where graphs stand in the end."""
    here, done = set(), [0] * len(some)
    free = {base for base, model in models.items() if model.size == 0}
    done = [a.served(d, free) for a, d in zip(some, done, strict=True)]
    for step in steps:
        assert step.base not in here
        assert any(
            a.bases[i] == step.base
            for a, d in zip(some, done, strict=True)
            for i in bits(a.ready(d))
        ), "nobody waits for it"
        assert here.issuperset(step.evict)
        here = here.difference(step.evict) | {step.base}
        assert room.holds([models[base].size for base in here])
        done = [a.served(d, here | free) for a, d in zip(some, done, strict=True)]
    return done


@given(groups, sizes, st.integers(4, 12))
def test_plans_end_and_keep_within_bytes(some, sizes, room):
    models = {f"fake:{model}": Model("", size) for model, size in sizes.items()}
    running = [(agenda, 0) for agenda in some]
    rooms = {"": Room(bytes=room)}
    steps = plan(running, [], models, rooms)
    assert walk(some, steps, models, Room(bytes=room)) == [agenda.all for agenda in some]
    assert steps == plan(running, [], models, rooms)


@given(groups, st.integers(1, 4))
def test_plans_take_no_more_loads_than_waves(some, room):
    models = {f"fake:{model}": Model() for model in MODELS}
    steps = plan([(agenda, 0) for agenda in some], [], models, {"": Room(models=room)})
    assert walk(some, steps, models, Room(models=room)) == [agenda.all for agenda in some]
    assert len(steps) <= by_waves(some, room)


@given(groups, st.integers(2, 6))
def test_with_room_for_all_each_is_loaded_once(some, room):
    models = {f"fake:{model}": Model() for model in MODELS}
    bases = {base for agenda in some for base in agenda.bases}
    if len(bases) <= room:
        steps = plan([(agenda, 0) for agenda in some], [], models, {"": Room(models=room)})
        assert sorted(step.base for step in steps) == sorted(bases)


def test_a_chain_longer_than_a_mask_is_planned_in_parts():
    items = [Item(expert(MODELS[k % 3]), (k - 1,) if k else ()) for k in range(150)]
    problem = [(Agenda(items), 0)]
    models = {f"fake:{model}": Model() for model in MODELS}
    steps = Problem(problem, [], models, {"": Room(models=1)}).by_waves()
    assert len(steps) == 150
    fake = Sized(batch=1000)
    run([Agenda(items)], fake, memory=1)
    assert len(fake.loads) == 150


def run(some, fake, *, memory, cancelled=(), recorder=None):
    """The outcomes of graphs that ask two prompts an item; None of those that were cancelled."""

    async def one(scheduler, number, agenda):
        with scheduler.join(agenda) as participant:
            found = {}

            async def ask(i):
                heard = [found[j] for j in agenda.items[i].after]
                await asyncio.gather(*heard)
                text = f"{number} {i} {crc32(repr([h.result() for h in heard]).encode())}"
                answers = await scheduler.ask(
                    agenda.items[i].expert,
                    [prompt(text), prompt("the same")],
                    participant=participant,
                    item=i,
                )
                return [str(getattr(o, "text", o)) for o in answers.outcomes]

            for i in agenda.order:
                found[i] = asyncio.create_task(ask(i))
            try:
                return await asyncio.gather(*(found[i] for i in range(len(found))))
            finally:
                for task in found.values():
                    task.cancel()

    async def work():
        async with asyncio.timeout(60):
            residency = Residency({"fake": fake}, memory=memory)
            scheduler = Scheduler(residency, recorder)
            tasks = [
                asyncio.create_task(one(scheduler, number, agenda))
                for number, agenda in enumerate(some)
            ]
            for turn in range(40 if cancelled else 0):
                for task, when in zip(tasks, cancelled, strict=False):
                    if when == turn:
                        task.cancel()
                await asyncio.sleep(0)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for result in done:
                if isinstance(result, BaseException):
                    assert cancelled, result
                    assert isinstance(result, asyncio.CancelledError), result
            return [None if isinstance(r, BaseException) else r for r in done]

    return asyncio.run(work())


@given(groups, sizes, st.integers(4, 24), st.sampled_from(["well", "slowly", "badly", "not"]))
@settings(max_examples=50)
def test_whatever_the_room_is_it_is_kept_to_and_answers_are_the_same(some, sizes, room, reads):
    narrow = Sized(sizes, Room(bytes=room), reads, batch=3, pause=1)
    wide = Sized(sizes, Room(bytes=10**6))
    answered = run(some, narrow, memory=f"{room}B")
    assert answered == run(some, wide, memory="1MB")
    assert max(Counter(wide.loads).values()) == 1, "everything fits"


@given(groups, st.integers(1, 4))
@settings(max_examples=50)
def test_no_more_is_loaded_than_by_waves(some, room):
    fake = Sized(room=Room(models=room))
    run(some, fake, memory=room)
    assert len(fake.loads) <= by_waves(some, room)


@given(
    groups,
    st.integers(1, 3),
    st.lists(st.none() | st.integers(0, 39), min_size=5, max_size=5),
    st.sampled_from(["well", "slowly", "badly", "for ever"]),
    st.sampled_from(MODELS),
    st.booleans(),
)
@settings(max_examples=50)
def test_every_request_one_outcome_when_loads_fail_and_graphs_are_cancelled(
    some, room, cancelled, reads, broken, caches
):
    class Failing(Sized):
        async def load(self, base, experts):
            await super().load(base, experts)
            if base == f"fake:{broken}":
                raise EngineError("does not load")

        async def prefetch(self, base, experts):
            if self.reads == "for ever" and not any(cancelled):
                self.reads = "well"  # nobody else would end it
            return await super().prefetch(base, experts)

    fake = Failing(None, Room(models=room), "slowly" if reads == "for ever" else reads, pause=1)
    recorder = MemoryCache() if caches else None
    answered = run(some, fake, memory=room, cancelled=cancelled, recorder=recorder)
    for agenda, outcomes, when in zip(some, answered, cancelled, strict=False):
        if outcomes is None:
            assert when is not None
            continue
        assert len(outcomes) == len(agenda.items)
        for item, texts in zip(agenda.items, outcomes, strict=True):
            failed = item.expert.model == broken
            assert [text == "does not load" for text in texts] == [failed, failed]
    assert len(fake.resident_now) <= room


def test_a_loaded_base_is_asked_again_before_another_is_loaded():
    a, b = expert("m0"), expert("m1")
    # In waves, m0 and m1 would take turns: m0 m1 | m1 m0 with room for one is 3 loads, then 4.
    first = Agenda([Item(a), Item(a, (0,)), Item(b, (1,))])
    second = Agenda([Item(b), Item(b, (0,))])
    fake = Sized()
    run([first, second], fake, memory=1)
    assert fake.loads == ["fake:m0", "fake:m1"]


def test_bases_that_wait_for_others_are_asked_late_so_that_batches_are_large():
    a, b, c = map(expert, MODELS[:3])
    # Both graphs want m1, one of them after m0. All of it together is asked in one batch.
    some = [Agenda([Item(a), Item(b, (0,)), Item(c, (1,))]), Agenda([Item(b), Item(c, (0,))])]
    fake = Sized(room=Room(models=2))
    run(some, fake, memory=2)
    assert [len(batch) for batch in fake.batches if batch[0].expert.model == "m1"] == [3]


def test_the_next_base_is_read_while_the_device_works():
    some = [Agenda([Item(expert(m), (k - 1,) if k else ()) for k, m in enumerate(MODELS)])]
    fake = Sized(batch=1, pause=2)
    log = Recording()
    run(some, fake, memory=1, recorder=log)
    assert fake.loads == [f"fake:{model}" for model in MODELS]
    assert fake.prefetched == fake.loads[1:]
    bearing = [batch for batch in log.batches if batch.loaded]
    assert [batch.prefetched for batch in bearing] == [False, *[True] * 5]
    assert [batch.evicted for batch in bearing[1:]] == [(base,) for base in fake.loads[:-1]]


def test_a_prefetch_that_fails_is_no_error_and_is_not_called_one():
    some = [Agenda([Item(expert(m), (k - 1,) if k else ()) for k, m in enumerate(MODELS)])]
    log = Recording()
    answered = run(some, Sized(reads="badly"), memory=1, recorder=log)
    assert not any(batch.prefetched for batch in log.batches)
    assert answered == run(some, Sized(), memory=1)


class Recording(MemoryCache):
    def __init__(self):
        super().__init__()
        self.batches = []

    def record(self, batch, experts, answers):
        super().record(batch, experts, answers)
        self.batches.append(batch)


async def test_bytes_evictions_and_seconds_are_recorded_with_the_batch_that_bore_them():
    log = Recording()
    fake = Sized({"m0": 3, "m1": 4, "m2": 5}, Room(bytes=8))
    scheduler = Scheduler(Residency({"fake": fake}, memory="8B"), log)
    for model in ("m0", "m1", "m2", "m2"):
        await scheduler.ask(expert(model), [prompt(len(log.batches))])
    taken = [(batch.load_bytes, batch.evicted, batch.loaded) for batch in log.batches]
    assert taken == [
        (3, (), True),
        (4, (), True),
        (5, ("fake:m1",), True),  # the smaller one may stay
        (0, (), False),
    ]
    evicting = log.batches[2]
    assert 0 < evicting.evict_seconds <= evicting.load_seconds
    assert evicting.started_at.tzinfo is UTC


@pytest.mark.parametrize("memory", ["3B", {"": "3B"}])
async def test_a_model_that_is_larger_than_the_room_is_refused_before_anything_is_loaded(memory):
    fake = Sized({"m0": 1, "m1": 4})
    scheduler = Scheduler(Residency({"fake": fake}, memory=memory))
    with pytest.raises(InputError, match=r"`fake:m1` takes 4 B.*`memory` is 3 B: give more"):
        scheduler.join(Agenda([Item(expert("m0")), Item(expert("m1"), (0,))]))
    assert fake.loads == []


def test_bytes_are_refused_where_nobody_knows_the_size():
    residency = Residency({"fake": Fake()}, memory="80GiB")
    with pytest.raises(InputError, match="nobody knows how much `fake:m0` takes"):
        residency.check([expert("m0")])
    Residency({"fake": Fake()}, memory=2).check([expert("m0")])


async def test_every_device_has_room_of_its_own():
    class Devices(Sized):
        def device_of(self, expert):
            return expert.options["device"]

    def on(model, device):
        return expert(model, device=device)

    fake = Devices({"m0@a": 3, "m1@a": 3, "m2@b": 3}, Room(bytes=7))
    residency = Residency({"fake": fake}, memory={"a": "4B", "b": "3B"})
    scheduler = Scheduler(residency)
    for who in (on("m0", "a"), on("m2", "b"), on("m1", "a")):
        await scheduler.ask(who, [prompt("x")])
    assert residency.loaded == ("fake:m2@b", "fake:m1@a")
    with pytest.raises(InputError, match="says nothing of device `c` but of `a`, `b`"):
        residency.check([on("m0", "c")])


def test_agents_are_asked_as_soon_as_all_that_they_hear_have_answered():
    """LangGraph alone would ask `d` in the step after `slow`, although it hears only `a`."""
    names = ["a", "slow", "d", "end"]
    graph = AgentGraph(
        agents=[{"name": n, "expert": n} for n in names],
        edges=[("a", "d"), ("d", "end"), ("slow", "end")],
    )
    pool = swarm.Pool([swarm.Expert.scripted(n, lambda _: "x") for n in names])
    fakes = {"scripted": Fake(limit=1)}
    order = []

    class Ordered(Fake):
        async def load(self, base, experts):
            order.append(experts[0].name)
            await super().load(base, experts)

    fakes["scripted"] = Ordered(limit=1)
    runtime = swarm.Runtime(fakes, memory=1)

    async def work():
        scheduler = runtime.scheduler()
        return await Program(graph, resolve(graph, pool), lambda: scheduler).run(["q"])

    [(_, done)] = asyncio.run(work())
    assert len(done.log) == 4
    assert order.index("d") < 3
    assert order[-1] == "end"


@pytest.mark.parametrize(
    ("value", "room"),
    [
        (3, Room(models=3)),
        ("3", Room(models=3)),
        ("80GiB", Room(bytes=80 << 30)),
        ("1.5 gb", Room(bytes=1_500_000_000)),
        ("500MB", Room(bytes=500_000_000)),
    ],
)
def test_memory_is_models_or_bytes(value, room):
    assert Memory.parse(value).room("cuda:0") == room


def test_memory_by_device_from_a_table_or_a_flag():
    table = Memory.parse({"cuda:0": "80GiB", "cuda:1": 2})
    assert table == Memory.parse("cuda:0=80GiB, cuda:1=2")
    assert table.room("cuda:1") == Room(models=2)
    assert table.room("cpu") is None


@pytest.mark.parametrize("value", [0, -1, True, None, 1.5, "", "many", "80 GiBs", "0GiB", "-3", {}])
def test_memory_that_is_neither_is_refused(value):
    with pytest.raises(InputError, match="`memory"):
        Memory.parse(value)


def test_sizes_are_shown_as_one_reads_them():
    assert [shown(n) for n in (0, 1023, 1 << 20, 3 << 29)] == ["0 B", "1023 B", "1 MiB", "1.5 GiB"]


def test_a_pool_says_how_much_memory_there_is(tmp_path):
    path = tmp_path / "pool.toml"
    path.write_text(
        '[memory]\n"cuda:0" = "80GiB"\n[[experts]]\nname = "e"\nengine = "server"\nmodel = "x/y"\n'
    )
    pool = swarm.Pool.load(path)
    assert pool.memory == Memory.parse({"cuda:0": "80GiB"})
    assert pool.subset("e").memory == pool.memory
    path.write_text(path.read_text().replace("80GiB", "eighty"))
    with pytest.raises(InputError, match=r"pool.toml.*key `memory`.*`memory.cuda:0` is `eighty`"):
        swarm.Pool.load(path)


def test_what_is_loaded_is_kept_between_schedulers_that_share_a_residency():
    fake = Sized(room=Room(models=2), pause=1)
    residency = Residency({"fake": fake}, memory=2)

    async def work():
        async with asyncio.timeout(60):
            schedulers = [Scheduler(residency) for _ in range(3)]
            asks = [schedulers[k % 3].ask(expert(MODELS[k % 4]), [prompt(k)]) for k in range(24)]
            return await asyncio.gather(*asks)

    for k, answers in enumerate(asyncio.run(work())):
        assert answers.outcomes == [answer(Request(expert(MODELS[k % 4]), prompt(k)))]
        assert isinstance(answers.outcomes[0], Response)


async def test_what_takes_no_room_may_be_on_a_device_that_nobody_has_limited():
    class Elsewhere(Sized):
        def device_of(self, expert):
            return "cuda:0"

    engine = Elsewhere()
    residency = Residency({"fake": engine}, memory=Memory.parse({"cuda:0": 1}))
    scheduler = Scheduler(residency)
    counter = Expert.scripted("count", lambda messages: "counted")
    items = [Item(expert("one")), Item(expert("two")), Item(counter, (0, 1))]
    with scheduler.join(Agenda(items)) as participant:
        first = [
            scheduler.ask(item.expert, [prompt("x")], participant=participant, item=i)
            for i, item in enumerate(items[:2])
        ]
        await asyncio.gather(*first)
        last = await scheduler.ask(counter, [prompt("x")], participant=participant, item=2)
    assert last.outcomes[0].text == "counted"
    assert engine.loads == ["fake:one", "fake:two"]
