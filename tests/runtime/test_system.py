"""Systems and evaluations as a user calls them: from scripts, notebooks and other programs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import Fake, FakeHTTP
from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.expert import Expert, Pool, Price
from swarm.agents.messages import Response
from swarm.errors import EngineError, InputError, PoolError, StoreError, TaskError
from swarm.graphs import topologies
from swarm.graphs.graph import Agent, AgentGraph
from swarm.runtime.evaluate import interval
from swarm.runtime.runtime import Runtime
from swarm.runtime.system import System, aevaluate, chain, evaluate, single, star
from swarm.store import Store
from swarm.tasks import Example, Task


def upper(messages):
    return messages[-1].content.rpartition("Question: ")[2].upper()


def picky(messages):
    if "fail" in messages[-1].content:
        raise ValueError("no thanks")
    return upper(messages)


POOL = Pool(
    [
        Expert.scripted("upper", upper, price=Price(input=1e6, output=2e6)),
        Expert.scripted("picky", picky),
    ]
)
TASK = Task.from_records(
    "capitals",
    "exact",
    test=[Example(question=q, answer=q.upper(), id=q) for q in ("a", "b", "fail", "d")],
)


@pytest.fixture
def runtime():
    return Runtime()


def test_one_question(runtime):
    system = System(topologies.chain(["upper", "picky"]), POOL, runtime=runtime)
    trace = system.invoke("a")
    assert trace.text == "A"
    assert trace.error is None
    assert [call.agent.name for call in trace.calls] == ["upper", "picky"]
    assert "Previous response 1: A" in trace.calls[1].prompt[-1].content
    assert all(call.response is not None and not call.cached for call in trace.calls)
    assert all(call.cached for call in system.invoke("a").calls)
    with pytest.raises(EngineError, match="no thanks"):
        system.invoke("fail")


def test_many_questions_of_which_one_fails(runtime):
    system = System(topologies.chain(["picky", "upper"]), POOL, runtime=runtime)
    a, failed, b = system.batch(["a", "fail", "b"])
    assert (a.text, b.text) == ("A", "B")
    assert failed.text is None
    assert "no thanks" in failed.error
    assert [call.agent.name for call in failed.calls] == ["picky"]
    assert failed.calls[0].response is None
    assert "fail" in failed.calls[0].prompt[-1].content
    assert system.batch([]) == []


def test_steps_as_they_come(runtime):
    system = System(topologies.star(["upper", "picky", "upper"]), POOL, runtime=runtime)
    steps = list(system.stream("a"))
    assert sorted(steps) == [("picky", "A"), ("upper", "A"), ("upper-2", "A")]
    assert steps[-1][0] == "upper-2"
    with pytest.raises(EngineError, match="no thanks"):
        list(system.stream("fail"))
    for _ in system.stream("a"):
        break  # whoever stops listening is not waited for


async def test_everything_works_where_a_loop_runs_already(runtime):
    """In a notebook."""
    system = System(topologies.single("upper"), POOL, runtime=runtime)
    assert system.invoke("a").text == "A"
    assert [trace.text for trace in system.batch(["a", "b"])] == ["A", "B"]
    assert list(system.stream("a")) == [("upper", "A")]
    assert system.evaluate(TASK).score == 1
    assert (await system.ainvoke("a")).text == "A"
    assert [step async for step in system.astream("a")] == [("upper", "A")]
    with pytest.raises(EngineError):
        System(topologies.single("picky"), POOL, runtime=runtime).invoke("fail")


def test_the_usual_graphs(runtime):
    assert single("upper", pool=POOL).graph == topologies.single("upper")
    assert chain("upper", "picky", pool=POOL).graph == topologies.chain(["upper", "picky"])
    assert star("upper", "picky", pool=POOL, roles="judge").graph == topologies.star(
        ["upper", "picky"], roles="judge"
    )


def test_failures_score_0_and_are_counted(runtime):
    evaluation = System(
        topologies.star(["upper", "picky", "upper"]), POOL, runtime=runtime
    ).evaluate(TASK)
    assert list(evaluation.scores) == [1, 1, 0, 1]
    assert evaluation.answers[2] is None
    assert evaluation.score == 0.75
    assert list(evaluation.errors) == [2]
    assert "no thanks" in evaluation.errors[2]
    assert list(evaluation.call_errors) == [(1, 2)]
    summary = evaluation.summary()
    assert (summary.questions, summary.failures) == (4, 1)
    assert summary.calls == 4 + 3 + 3
    assert summary.asked == summary.calls
    assert summary.tokens > 0
    assert "1 failed" in str(summary)
    assert summary.as_dict()["score"] == 0.75
    again = System(topologies.star(["upper", "picky", "upper"]), POOL, runtime=runtime).evaluate(
        TASK
    )
    assert again.summary().asked == 0
    assert again.summary().tokens == summary.tokens
    assert again.summary().cost == summary.cost > 0


def test_graphs_are_evaluated_together_and_each_once():
    fake = Fake()
    pool = Pool([Expert(name=m, engine="scripted", model=m) for m in ("one", "two")])
    graphs = [topologies.chain(["one", "two"]), topologies.single("one")]
    found = evaluate([*graphs, graphs[0]], TASK, pool, runtime=Runtime({"scripted": fake}))
    assert [evaluation.graph for evaluation in found] == [*graphs, graphs[0]]
    assert found[0] is found[2]
    assert set(fake.asked.values()) == {1}
    assert fake.loads == ["scripted:one", "scripted:two"]
    assert len(fake.batches) == 2  # the first agents of both, and the last


def test_an_engine_that_wants_narrow_columns_gets_them():
    fake = FakeHTTP()
    pool = Pool([Expert(name="one", engine="scripted", model="one")])
    system = System(topologies.chain(["one", "one"]), pool, runtime=Runtime({"scripted": fake}))
    [evaluation] = evaluate([system.graph], TASK, pool, runtime=system.runtime)
    assert sorted(map(len, fake.batches)) == [1, 1, 3, 3]
    assert [rows for rows, _ in evaluation.runs] == [range(3), range(3, 4)]
    fake.batches.clear()
    asked = [f"q{i}" for i in range(7)]
    traces = system.batch(asked)
    assert [trace.question for trace in traces] == asked
    assert all(f"to {trace.calls[-1].prompt[-1].content}" in trace.text for trace in traces)
    assert sorted(map(len, fake.batches)) == [1, 1, 3, 3, 3, 3]


@pytest.mark.parametrize("limit", [1, 3, None, 99])
def test_the_first_so_many_questions(runtime, limit):
    evaluation = System(topologies.single("upper"), POOL, runtime=runtime).evaluate(
        TASK, limit=limit
    )
    assert len(evaluation.scores) == min(limit or 4, 4)


def test_what_can_be_refused_is_refused_before_anything_is_recorded(tmp_path):
    store = tmp_path / "runs.db"
    graph = topologies.single("upper")
    for error, arguments in [
        (InputError, {"limit": 0}),
        (TaskError, {"split": "tset"}),
        (PoolError, {"graphs": [topologies.single("uper")]}),
    ]:
        with pytest.raises(error):
            evaluate(**{"graphs": [graph], "task": TASK, "pool": POOL, "store": store} | arguments)
    assert not store.exists() or Store.open(store).runs() == []


def test_an_evaluation_is_recorded_whole_and_asks_nothing_the_second_time(tmp_path):
    path = tmp_path / "runs.db"
    graphs = [topologies.chain(["upper", "picky"]), topologies.star(["picky", "upper", "picky"])]

    def once():
        return evaluate(graphs, TASK, POOL, store=path, runtime=Runtime(), name="mine")

    first, second = once(), once()
    assert [e.run for e in first] != [e.run for e in second]
    assert sum(e.summary().asked for e in first) > 0
    assert sum(e.summary().calls for e in first) == sum(e.summary().calls for e in second)
    with Store.open(path) as store:
        assert [run.status for run in store.runs()] == ["done", "done"]
        assert [run.name for run in store.runs()] == ["mine", "mine"]
        for evaluations in (first, second):
            check_recorded(store, evaluations)
        batches = store.batches(first[0].run)
        asked = sum(e.summary().asked for e in first)
        # Those that failed were asked, too, and are asked again.
        failures = {m for e in first for _, run in e.runs for m in failed_prompts(run)}
        assert sum(view.batch.requests for view in batches) == asked + len(failures)
        again = store.batches(second[0].run)
        assert sum(view.batch.requests for view in again) == len(failures)


def failed_prompts(run):
    for entry in run.log.values():
        for prompt, outcome in zip(entry.prompts, entry.outcomes, strict=True):
            if not isinstance(outcome, Response):
                yield prompt


def check_recorded(store, evaluations):
    views = store.evaluations(evaluations[0].run)
    assert [view.graph for view in views] == [e.graph for e in evaluations]
    for view, evaluation in zip(views, evaluations, strict=True):
        assert view.score == evaluation.score
        record = store.recorded(view.id)
        assert list(record.scores) == list(evaluation.scores)
        assert record.errors == evaluation.errors
        assert record.call_errors == evaluation.call_errors
        keys = {key for column in record.keys for key in column if key is not None}
        answers = store.answers(keys)
        assert set(answers) == keys
        for position, agent in enumerate(evaluation.graph.agents):
            [(_, run)] = evaluation.runs
            entry = run.log[agent.name]
            rows = range(4) if entry.rows is None else entry.rows
            for k, row in enumerate(rows):
                outcome, key = entry.outcomes[k], record.keys[position][row]
                if isinstance(outcome, Response):
                    assert answers[key].response == outcome
                    assert answers[key].messages == entry.prompts[k]
                    assert record.cached[position][row] == entry.cached[k]
                else:
                    assert key is None
                    assert str(outcome) == record.call_errors[position, row]


def test_a_store_that_fails_in_the_middle_is_the_error_that_is_raised(tmp_path):
    store = Store.open(tmp_path / "runs.db")
    engine = Fake(batch=1)
    pool = Pool([Expert(name="one", engine="scripted", model="one")])

    class Gone(Fake):
        async def generate(self, requests):
            (tmp_path / "runs.db").unlink()
            return await super().generate(requests)

    graphs = [topologies.single("one"), topologies.chain(["one", "one"])]
    with pytest.raises(StoreError, match="moved or deleted"):
        evaluate(graphs, TASK, pool, store=store, runtime=Runtime({"scripted": Gone()}))
    store.close()
    assert engine.batches == []


async def test_cancelled_in_the_middle(tmp_path):
    fake = Fake(pause=20)
    pool = Pool([Expert(name="one", engine="scripted", model="one")])
    runtime = Runtime({"scripted": fake})
    graph = topologies.chain(["one"] * 5)
    with Store.open(tmp_path / "runs.db") as store:
        task = asyncio.create_task(aevaluate([graph], TASK, pool, store=store, runtime=runtime))
        while not fake.batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [run.status for run in store.runs()] == ["interrupted"]
    async with asyncio.timeout(60):
        [evaluation] = await aevaluate([graph], TASK, pool, runtime=runtime)
    assert evaluation.summary().failures == 0


SLOW = """
import asyncio, sys, threading, time
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.expert import Expert, Pool
from swarm.graphs import topologies
from swarm.runtime.runtime import Runtime
from swarm.runtime.system import System

class Slow(ScriptedEngine):
    async def plan(self, requests):
        return [[i] for i in range(len(requests))]

    async def generate(self, requests):
        print("batch", flush=True)
        await asyncio.to_thread(time.sleep, 0.5)
        return await super().generate(requests)

pool = Pool([Expert.scripted("e", lambda messages: "x")])
system = System(topologies.single("e"), pool, runtime=Runtime({"scripted": Slow()}))

def ask():
    try:
        system.batch([str(i) for i in range(100)])
    except KeyboardInterrupt:
        print("interrupted", flush=True)

async def cell():
    ask()

{how}
"""


@pytest.mark.parametrize(
    "how",
    ["ask()", "asyncio.new_event_loop().run_until_complete(cell())"],
    ids=["script", "notebook"],
)
def test_ctrl_c_waits_for_no_more_than_the_batch_that_runs(how):
    code = SLOW.replace("{how}", how)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "batch\n"
        os.kill(process.pid, signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert "interrupted" in said
    assert said.count("batch") <= 2
    assert complained == ""
    assert process.returncode == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_confidence_interval_holds_the_mean(scores):
    low, high = interval(scores)
    assert 0 <= low <= sum(scores) / len(scores) + 1e-9
    assert sum(scores) / len(scores) - 1e-9 <= high <= 1
    assert low < high


def test_the_confidence_interval_is_wilsons():
    """Against the example in Brown, Cai and DasGupta (2001): 0 of 10, and 9 of 10."""
    assert interval([0.0] * 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert interval([1.0] * 9 + [0.0]) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_a_runtime_is_closed_and_used_again():
    fake = Fake()
    runtime = Runtime({"scripted": fake})
    pool = Pool([Expert(name="one", engine="scripted", model="one")])
    system = System(AgentGraph(agents=(Agent(name="a", expert="one"),)), pool, runtime=runtime)
    system.invoke("a")
    runtime.close()
    assert runtime.residency.loaded == ()
    system.invoke("b")
    assert runtime.residency.loaded == ("scripted:one",)


def test_nothing_heavy_is_imported_until_it_is_used():
    code = (
        "import sys, swarm.runtime.system, swarm.agents.expert;"
        "heavy = {'torch', 'transformers', 'peft', 'langgraph', 'litellm'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
