"""What a run says of itself: the weakest of what was really asked in it."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swarm
from swarm.agents.engines import ENGINES
from swarm.agents.engines.determinism import Determinism
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.expert import Expert, Pool
from swarm.graphs import chain, single, star
from swarm.optimizers import find_optimizer
from swarm.replay import replay
from swarm.runtime.recording import WeakestAsked
from swarm.runtime.runtime import Runtime
from swarm.runtime.system import evaluate
from swarm.store import BatchRecord, Store
from swarm.tasks import Task

BITWISE, SEEDED, REPLAY_ONLY = Determinism


def says(messages):
    return messages[-1].content[-1:]


class Says(ScriptedEngine):
    """Promises of each expert what its description says."""

    @classmethod
    def determinism(cls, expert):
        return Determinism(expert.description or "bitwise")


POOL = Pool(Expert.scripted(each.value, says, description=each.value) for each in Determinism)
TASK = Task.from_records(
    "letters",
    "exact",
    **{
        split: [{"question": f"{split} {k}", "answer": str(k)} for k in range(4)]
        for split in ("dev", "test")
    },
)


def runtime():
    return Runtime({"scripted": Says()})


promises = st.sampled_from(Determinism)


@given(st.lists(promises))
def test_the_weakest_counts(found):
    order = list(Determinism)
    weakest = Determinism.weakest(found)
    assert weakest in found or (weakest is BITWISE and not found)
    assert all(order.index(each) <= order.index(weakest) for each in found)
    assert Determinism.weakest(reversed(found)) is weakest


@pytest.mark.parametrize(
    ("experts", "expected"),
    [
        (["bitwise"], BITWISE),
        (["bitwise", "seeded"], SEEDED),
        (["replay-only", "bitwise"], REPLAY_ONLY),
        (["seeded", "replay-only", "bitwise"], REPLAY_ONLY),
    ],
)
def test_an_evaluation_and_its_run(tmp_path, experts, expected):
    path = tmp_path / "swarm.db"

    def run(graphs):
        found = evaluate(graphs, TASK, POOL, store=path, runtime=runtime())
        with Store.open(path) as store:
            said = store.run(found[0].run).summary["determinism"]
        assert {evaluation.summary().determinism for evaluation in found} == {said}
        assert str(found[0].summary()).endswith(said)
        return said

    assert run([star(experts)]) == expected.value
    assert run([star(experts)]) == "bitwise", "from the record alone"
    assert run([star(experts), single("seeded", role="judge")]) == "seeded"
    assert replay(str(path), 1).determinism == "bitwise"
    with Store.open(path) as store:
        assert store.runs(1)[0].summary["determinism"] == "bitwise"


def test_without_a_store_too():
    shared = runtime()
    graph = chain(["bitwise", "seeded"])
    system = swarm.System(graph, POOL, runtime=shared)
    assert system.evaluate(TASK).summary().determinism == "seeded"
    assert system.evaluate(TASK).summary().determinism == "bitwise"
    first, second = (system.evaluate(TASK, "dev", limit=n) for n in (2, 2))
    assert first.determinism is SEEDED
    assert (second + first).determinism is SEEDED


def test_what_failed_was_not_answered_and_so_promises_nothing():
    def fails(messages):
        raise ValueError("no")

    pool = Pool([POOL["bitwise"], Expert.scripted("fails", fails, description="replay-only")])
    [evaluation] = evaluate([star(["fails", "bitwise"])], TASK, pool, runtime=runtime())
    assert evaluation.summary().failures == 4
    assert evaluation.determinism is BITWISE


class Killed(BaseException):
    pass


@pytest.mark.parametrize("seed", range(3))
def test_a_job_that_was_killed_says_what_one_that_was_not_says(tmp_path, seed):
    """Whichever session asked what: the last one may have asked nothing but of the strongest."""
    job = swarm.RoleStep(particles=3, iterations=3, seed=seed)
    job.fit(TASK, POOL, store=str(tmp_path / "whole.db"), runtime=runtime())
    rng, kills = random.Random(seed), 0

    class Mortal(Says):
        left = 0

        async def generate(self, requests):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return await super().generate(requests)

    for kills in itertools.count():  # noqa: B007
        engine = Mortal()
        engine.left = rng.randint(1, 4)
        try:
            job.fit(
                TASK, POOL, store=str(tmp_path / "killed.db"), runtime=Runtime({"scripted": engine})
            )
        except (Killed, BaseExceptionGroup):
            continue
        break
    found = []
    for name in ("whole.db", "killed.db"):
        with Store.open(tmp_path / name) as store:
            summary = store.run(1).summary
            found.append({k: summary[k] for k in ("determinism", "shortened", "score", "asked")})
    assert kills > 0
    assert found[0] == found[1]
    assert found[0]["determinism"] == "replay-only"


@pytest.mark.parametrize("name", ["best_single", "majority_vote"])
def test_baselines_say_it_too(tmp_path, name):
    find_optimizer(name)().fit(TASK, POOL, store=str(tmp_path / "s.db"), runtime=runtime())
    with Store.open(tmp_path / "s.db") as store:
        assert store.run(1).summary["determinism"] == "replay-only"


def batch(*experts, engine="scripted", answered=1, seedless=False):
    return BatchRecord(
        wave=1,
        base=f"{engine}:x",
        experts=experts,
        requests=1,
        prompt_tokens=answered,
        completion_tokens=0,
        seconds=0,
        load_seconds=0,
        loaded=False,
        started_at=datetime.now(UTC),
        seedless=seedless,
    )


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([], BITWISE),
        ([batch("bitwise", "seeded")], SEEDED),
        ([batch("replay-only", answered=0)], BITWISE),
        ([batch("seeded"), batch("bitwise")], SEEDED),
        ([batch("bitwise@3")], REPLAY_ONLY),  # it came to be in the run: as those of its engine
        ([batch("gone", engine="transformers")], SEEDED),
        ([batch("vote")], REPLAY_ONLY),
        ([batch("bitwise", seedless=True), batch("bitwise")], REPLAY_ONLY),
    ],
)
def test_it_follows_from_the_batches(batches, expected):
    def engine(name):
        return Says() if name == "scripted" else ENGINES[name].load()

    assert WeakestAsked(engine, POOL, batches).found is expected
    session = WeakestAsked(engine, POOL)
    for each in batches:
        session.book(each)
    assert session.found is expected


def test_every_engine_says_what_it_promises():
    expected = {
        "recorded": BITWISE,
        "scripted": BITWISE,
        "server": REPLAY_ONLY,
        "transformers": SEEDED,
    }
    assert expected.keys() <= ENGINES.keys()
    for name, promised in expected.items():
        expert = Expert(name="e", engine=name, model="host/model")
        assert ENGINES[name].load().determinism(expert) is promised
