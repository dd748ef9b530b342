"""No prompt is longer than its expert can hold: it is refused or shortened, and its trace says so.

The scripted engine counts words, so that a token is a word here.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.expert import Expert, Pool, Sampling
from swarm.agents.messages import Message, Request, Response
from swarm.agents.prompt import COMPACT, Position
from swarm.agents.role import Role
from swarm.agents.shortening import MARK
from swarm.errors import ConfigError, DivergenceError, EngineError, RequestError
from swarm.graphs.graph import Agent, AgentGraph
from swarm.graphs.topologies import chain, single, star
from swarm.replay import replay
from swarm.runtime.cache import MemoryCache
from swarm.runtime.compile import resolve
from swarm.runtime.fitting import Column, fit
from swarm.runtime.program import Program
from swarm.runtime.routing import Asker
from swarm.runtime.runtime import Runtime, run_sync
from swarm.runtime.system import System, evaluate
from swarm.store import Store
from swarm.tasks import Task

WRITES = 5
"""`max_tokens` of who reads."""


def words_of(question):
    """How many words a question asks each agent for, by the agent's number."""
    return json.loads(question.partition("Question: ")[2].split()[0])


def make_reader(name, **how):
    def says(messages):
        return "final answer"

    sampling = Sampling(max_tokens=WRITES)
    return Expert.scripted(name, says, prompt="compact", sampling=sampling, **how)


def make_talker(number):
    """Says as many words as the question asks it for."""

    def says(messages):
        count = words_of(messages[-1].content)[number]
        return " ".join(f"a{number}w{k}" for k in range(count))

    sampling = Sampling(max_tokens=10_000)
    return Expert.scripted(f"talker{number}", says, prompt="compact", sampling=sampling)


def question(counts, more=0):
    return " ".join([json.dumps(counts, separators=(",", ":")), *["why"] * more])


def pool_with(**how):
    return Pool([*(make_talker(k) for k in range(3)), make_reader("reader", **how)])


GRAPH = star(["talker0", "talker1", "talker2", "reader"])
CHAIN = chain(["talker2", "talker0", "reader"])
counts = st.lists(st.integers(1, 60), min_size=3, max_size=3)
asked = st.lists(st.tuples(counts, st.integers(0, 40)), min_size=1, max_size=4)


def tokens(prompt):
    return sum(content.count(" ") + 1 for _, content in prompt)


def reader_calls(traces):
    """The reader's part in each; None where it was not there."""
    return [next((c for c in t.calls if c.agent.name == "reader"), None) for t in traces]


def ask(pool, questions, graph=GRAPH):
    return System(graph, pool, runtime=Runtime()).batch(questions)


def column_of(some, oldest_first=(0, 1, 2)):
    questions = [question(*each) for each in some]
    previous = [
        [" ".join(f"a{k}w{i}" for i in range(each[k])) for each, _ in some] for k in range(3)
    ]
    role = Role(name="solver")
    return Column(COMPACT, role, Position.LAST, questions, previous, oldest_first)


def fitted(column, context):
    reader = make_reader("reader", context=context, overflow="shorten")
    return asyncio.run(fit(ScriptedEngine(), reader, column))


@given(asked, st.integers(WRITES + 1, 250), st.permutations(range(3)))
def test_what_is_sent_fits_and_is_as_whole_as_it_can_be(some, context, oldest_first):
    column, room = column_of(some, oldest_first), context - WRITES
    done = fitted(column, context)
    assert not done.cuts.keys() & done.refused.keys()
    for i, (whole, prompt) in enumerate(zip(column.prompts(), done.prompts, strict=True)):
        before = [f"{k + 1}: {column.previous[k][i]}" for k in range(3)]
        *lines, asking, answering = prompt[-1].content.splitlines()
        assert (asking, answering) == (f"Question: {column.questions[i]}", "Answer:")
        if tokens(whole) <= room:
            assert prompt == whole
            assert i not in done.cuts
            assert i not in done.refused
            continue
        if i in done.refused:
            assert "without any response before it" in str(done.refused[i])
            bare = tokens(whole) - sum(count - 1 for count in some[i][0])
            assert bare > room, "refused only where nothing would have helped"
            continue
        assert tokens(prompt) <= room
        # Little more is lost than must be: the mark may take the place of a word.
        assert room - tokens(prompt) <= max(1, room // 100)
        lost = [k for k in oldest_first if lines[k] != before[k]]
        assert lost == oldest_first[: len(lost)], "the oldest first"
        for k in lost:
            said = lines[k].partition(": ")[2]
            if k != lost[-1]:
                assert said == MARK, "down to nothing, then the next"
            elif said != MARK:
                assert said.startswith(f"{MARK} a{k}w")
                assert before[k].endswith(said.removeprefix(MARK)), "its end is left"
        assert [cut.response for cut in done.cuts[i]] == sorted(k + 1 for k in lost)


@given(asked, st.integers(WRITES + 1, 150))
def test_company_and_repetition_change_nothing(some, context):
    together = fitted(column_of(some), context)
    assert fitted(column_of(some), context).prompts == together.prompts
    for i, each in enumerate(some):
        alone = fitted(column_of([each]), context)
        assert alone.prompts == [together.prompts[i]]
        assert alone.cuts.get(0) == together.cuts.get(i)
        assert str(alone.refused.get(0)) == str(together.refused.get(i))


def test_the_oldest_is_who_answered_first_not_who_stands_first():
    agents = (
        Agent(name="late", expert="talker0"),
        Agent(name="early", expert="talker1"),
        Agent(name="reader", expert="reader"),
    )
    edges = (("early", "late"), ("early", "reader"), ("late", "reader"))
    pool = pool_with(context=30, overflow="shorten")
    [trace] = ask(pool, [question([15, 15, 0])], AgentGraph(agents=agents, edges=edges))
    [call] = reader_calls([trace])
    first, second = call.prompt[-1].content.splitlines()[:2]
    assert first.count(" ") == 15, "`late` stands first, and is whole"
    assert second.startswith(f"2: {MARK}")
    assert [cut.response for cut in call.shortened] == [2]


def test_by_default_and_where_it_is_said_it_is_refused_alone():
    for how in ({}, {"overflow": "refuse"}):
        pool = pool_with(context=40, **how)
        fine, refused = ask(pool, [question([5, 5, 5]), question([5, 5, 50])])
        assert fine.text == "final answer"
        assert refused.text is None
        assert refused.error == (
            "`reader`: a prompt of 62 tokens and `max_tokens` 5 are more than its context of 40: "
            "shorten the question or the role's instructions, lower `max_tokens`, have responses "
            'before it cut by `overflow = "shorten"`, or use a model with a longer context'
        )
        assert [call.response is None for call in refused.calls] == [False, False, False, True]


def test_who_has_nothing_to_cut_is_not_told_to():
    pool = Pool([make_reader("reader", context=10)])
    [trace] = ask(pool, [question([0, 0, 0], 20)], single("reader"))
    assert "a prompt of 22 tokens" in trace.error
    assert "overflow" not in trace.error


class Watched(ScriptedEngine):
    """Notes what is counted and what is asked."""

    def __init__(self):
        self.counted, self.asked = [], []

    async def count(self, expert, prompts):
        self.counted += prompts
        return await super().count(expert, prompts)

    async def generate(self, requests):
        self.asked += [request.messages for request in requests]
        return await super().generate(requests)


def run_watched(pool, questions, engine=None):
    engine = engine or Watched()
    system = System(GRAPH, pool, runtime=Runtime({"scripted": engine}))
    return engine, system.batch(questions)


def test_short_prompts_are_not_counted():
    questions = [question([3, 3, 3], k) for k in range(50)]
    engine, _ = run_watched(pool_with(context=10_000, overflow="shorten"), questions)
    assert engine.counted == []
    engine, _ = run_watched(pool_with(context=600, overflow="shorten"), questions)
    assert len(engine.counted) == 1, "only what a template puts around a prompt"
    engine, _ = run_watched(pool_with(overflow="shorten"), questions)
    assert engine.counted == [], "nobody knows what the expert can hold"


def test_what_is_refused_is_never_sent():
    engine, traces = run_watched(pool_with(context=20), [question([9, 9, 9])] * 2)
    assert [trace.text for trace in traces] == [None, None]
    assert len(engine.asked) == 3


def asked_by_a_policy(prompts, questions, **how):
    """What a policy that asks the reader is answered, and the reader's prompts."""
    engine = Watched()
    scheduler = Runtime({"scripted": engine}).scheduler(MemoryCache())
    asker = Asker(scheduler, Pool([make_reader("reader", **how)]), questions)
    [*answers] = run_sync(asker("reader", prompts))
    return [outcome for [outcome] in answers], asker.asked[0], engine.asked


@pytest.mark.parametrize("overflow", ["refuse", "shorten"])
def test_a_policy_can_not_ask_more_than_an_expert_can_hold_either(overflow):
    """In its own words nobody knows what may be cut."""
    short, long, other = "why " * 3, "why " * 30, "why " * 4
    prompts = [
        (Message("system", "judge"), Message("user", short)),
        (Message("system", "judge"), Message("user", long)),
        (Message("user", other),),
    ]
    answers, asked, sent = asked_by_a_policy(prompts, 3, context=20, overflow=overflow)
    assert [type(answer) for answer in answers] == [Response, RequestError, Response]
    assert "more than its context of 20: shorten the question" in str(answers[1])
    assert "overflow" not in str(answers[1])
    assert sorted(sent) == sorted([prompts[0], prompts[2]])
    assert [key for [key] in asked.keys] == [
        Request(asked.expert, prompt).key() for prompt in prompts
    ]
    assert len(asked.answered) == 2


def test_what_an_agent_would_be_asked_is_shortened_for_a_policy_as_for_an_agent():
    column = column_of([([3, 3, 3], 0), ([9, 9, 30], 0)])
    answers, asked, sent = asked_by_a_policy(column, 2, context=40, overflow="shorten")
    assert all(isinstance(answer, Response) for answer in answers)
    assert asked.cuts.keys() == {1}
    done = fitted(column, 40)
    assert (asked.prompts, asked.cuts) == (done.prompts, done.cuts)
    assert sent == done.prompts
    answers, asked, sent = asked_by_a_policy(column, 2, context=40)
    assert isinstance(answers[1], RequestError)
    assert (len(sent), asked.cuts) == (1, {})


@pytest.mark.parametrize("fault", ["context", "count", "own"])
def test_an_engine_that_cannot_count_fails_what_it_should_have_counted(fault):
    class Broken(Watched):
        async def context(self, expert):
            if fault == "context":
                raise EngineError("no answer from the endpoint")
            return await super().context(expert)

        async def count(self, expert, prompts):
            if fault == "count":
                raise EngineError("no tokenizer")
            if fault == "own":
                raise ZeroDivisionError("odd")
            return await super().count(expert, prompts)

    pool = pool_with(context=30, overflow="shorten")
    _, [trace] = run_watched(pool, [question([30, 3, 3])], Broken())
    told = {"context": "no answer from", "count": "no tokenizer", "own": "ZeroDivisionError: odd"}
    assert told[fault] in trace.error
    assert sum(call.response is not None for call in trace.calls) == 3


def test_an_engine_that_never_counts_is_left_to_itself():
    class Silent(ScriptedEngine):
        async def count(self, expert, prompts):
            return None

    _, [trace] = run_watched(
        pool_with(context=30, overflow="shorten"), [question([30, 3, 3])], Silent()
    )
    assert trace.text == "final answer"
    assert trace.calls[-1].shortened == ()


async def test_within_a_langgraph_program_of_ones_own():
    pool = pool_with(context=30, overflow="shorten")
    program = System(GRAPH, pool, runtime=Runtime()).as_langgraph()
    state = await program.ainvoke({"questions": [question([40, 3, 3])]})
    assert state["answers"] == ["final answer"]
    refusing = System(GRAPH, pool_with(context=30), runtime=Runtime()).as_langgraph()
    with pytest.raises(EngineError, match="more than its context of 30"):
        await refusing.ainvoke({"questions": [question([40, 3, 3])]})


def test_streaming_is_shortened_too():
    pool = pool_with(context=30, overflow="shorten")
    steps = System(GRAPH, pool, runtime=Runtime()).stream(question([40, 3, 3]))
    assert list(steps)[-1] == ("reader", "final answer")


def task_of(questions):
    return Task.from_records(
        "talk", "exact", test=[{"question": q, "answer": "final answer"} for q in questions]
    )


@settings(max_examples=20)
@given(asked, st.integers(WRITES + 1, 150), st.sampled_from([GRAPH, CHAIN]))
def test_a_replay_shortens_again_without_a_tokenizer(some, context, graph):
    task = task_of([question(*each) for each in some])
    pool = pool_with(context=context, overflow="shorten")
    with Store.open("sqlite://") as store:
        [evaluation] = evaluate([graph], task, pool, store=store, runtime=Runtime())
        summary = store.run(1).summary
        assert summary["shortened"] == evaluation.summary().shortened == store.count_shortened(1)
        marked = [
            call.shortened is not None
            for trace in store.traces(1)
            for call in trace.calls
            if call.answer is not None
        ]
        assert sum(marked) == summary["shortened"]
        report = replay(store, 1, task=task)
        assert report.shortened == summary["shortened"]
        assert report.prompts == len(marked)


@pytest.fixture
def recorded(tmp_path):
    """A store whose run 1 has one shortened prompt; its path."""
    path = tmp_path / "swarm.db"
    pool = pool_with(context=30, overflow="shorten")
    evaluate([GRAPH], task_of([question([20, 5, 3])]), pool, store=path, runtime=Runtime())
    return path


def change(path, statement):
    with sqlite3.connect(path) as database:
        assert database.execute(statement).rowcount == 1
    database.close()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ("'1: 0 of 89'", "the prompt is not as recorded"),
        ("NULL", "the prompt is not as recorded"),
        ("'nonsense'", "how the prompt was shortened is not as recorded"),
        ("'7: 0 of 89'", "the prompt is not as recorded"),
    ],
)
def test_a_replay_finds_what_was_changed(recorded, other, what):
    assert replay(str(recorded), 1).shortened == 1
    change(recorded, f"UPDATE calls SET shortened = {other} WHERE shortened IS NOT NULL")
    with pytest.raises(DivergenceError, match=what) as caught:
        replay(str(recorded), 1)
    assert caught.value.agent == "reader"


def test_a_policy_is_no_part_of_what_an_expert_is(tmp_path):
    plain, policy = make_reader("reader"), make_reader("reader", context=400, overflow="shorten")
    assert plain.fingerprint == policy.fingerprint
    task = task_of([question([20, 5, 3])])
    path = tmp_path / "swarm.db"
    for pool, asked in [
        (pool_with(), 4),
        (pool_with(context=400, overflow="shorten"), 0),  # it fits: the same prompt
        (pool_with(context=30, overflow="shorten"), 1),  # another prompt, another answer
        (pool_with(context=30, overflow="shorten"), 0),
    ]:
        [evaluation] = evaluate([GRAPH], task, pool, store=path, runtime=Runtime())
        assert evaluation.summary().asked == asked


def test_but_it_is_part_of_what_a_job_is(tmp_path):
    """Scores that were made with one must not be taken for scores made with the other."""
    task = Task.from_records(
        "talk", "exact", dev=[{"question": question([20, 5, 3]), "answer": "final answer"}]
    )
    runs = []
    for how in ({}, {"context": 30, "overflow": "shorten"}, {"context": 31}, {}):
        job = swarm.RoleStep(particles=2, iterations=1)
        runs.append(
            job.fit(task, pool_with(**how), store=str(tmp_path / "s.db"), runtime=Runtime()).run
        )
    assert runs == [1, 2, 3, 1]


def test_a_job_counts_what_it_shortened_also_before_it_was_stopped(tmp_path):
    task = Task.from_records(
        "talk",
        "exact",
        dev=[{"question": question([k, 20, 30]), "answer": "final answer"} for k in range(1, 9)],
    )
    how = {"sampling": Sampling(max_tokens=40), "context": 70, "overflow": "shorten"}
    pool = Pool(make_talker(k).model_copy(update=how) for k in range(3))
    job = swarm.RoleStep(particles=3, iterations=3)

    def fit(name, **budget):
        store = str(tmp_path / name)
        limits = swarm.Budget(**budget) if budget else None
        job.fit(task, pool, store=store, runtime=Runtime(), budget=limits)
        with Store.open(store) as opened:
            marked = sum(c.shortened is not None for t in opened.traces(1) for c in t.calls)
            summary = opened.run(1).summary
        assert summary["shortened"] == marked > 0
        return summary

    assert fit("stopped.db", max_calls=70)["stopped"] == "max_calls"
    summary = fit("stopped.db")
    whole = fit("whole.db")
    assert summary["shortened"] == whole["shortened"]
    assert summary["determinism"] == whole["determinism"] == "bitwise"
    assert replay(str(tmp_path / "whole.db"), 1).shortened == whole["shortened"]


def test_a_context_that_leaves_no_room_is_refused(tmp_path):
    (tmp_path / "pool.toml").write_text(
        '[defaults]\nengine = "scripted"\nmodel = "t.json"\ncontext = 100\noverflow = "shorten"\n'
        '[[experts]]\nname = "a"\nsampling = { max_tokens = 20 }\n[[experts]]\nname = "b"\n'
    )
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        Pool.load(tmp_path / "pool.toml")
    told = "its `context` of 100 tokens leaves no room for a prompt beside `max_tokens` 256"
    assert told in str(caught.value)
    assert "expert 2 (b)" in str(caught.value).replace("`", "")


def test_questions_in_several_columns_keep_their_cuts():
    class Narrow(ScriptedEngine):
        column = 2

    pool = pool_with(context=30, overflow="shorten")
    lengths = [[1, 1, 1], [30, 1, 1], [1, 30, 1], [1, 1, 1], [2, 2, 30]]
    task = task_of([question(each) for each in lengths])
    [evaluation] = evaluate([GRAPH], task, pool, runtime=Runtime({"scripted": Narrow()}))
    assert sorted(evaluation.shortened) == [(3, 1), (3, 2), (3, 4)]
    nodes, runtime = resolve(GRAPH, pool), Runtime({"scripted": Narrow()})
    program = Program(GRAPH, nodes, runtime.shared_scheduler)
    again = run_sync(program.run([question(each) for each in lengths], evaluation.shortened))
    for (_, mine), (_, other) in zip(again, evaluation.runs, strict=True):
        assert mine.log["reader"].prompts == other.log["reader"].prompts
        assert all(isinstance(o, Response) for o in mine.log["reader"].outcomes)
