"""A recorded run replays as it was, without engines; whatever was changed since is named."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swarm
from swarm.agents import prompt
from swarm.agents.messages import Messages
from swarm.errors import DivergenceError, InputError
from swarm.graphs import AgentGraph, chain, debate, star
from swarm.graphs.graph import Agent
from swarm.replay import ReplayReport, replay
from swarm.runtime import residency
from swarm.store import Store

QUESTIONS = [{"id": f"q{n}", "question": f"count from {n}", "answer": str(n + 2)} for n in range(5)]


def last_number(messages: Messages) -> int:
    *_, said = [word for word in messages[-1].content.split() if word.isdecimal()]
    previous = [line for line in messages[-1].content.splitlines() if "so it is" in line]
    return int(previous[-1].split()[-1] if previous else said)


def more(messages: Messages) -> str:
    return f"so it is {last_number(messages) + 1}"


def picky(messages: Messages) -> str:
    if last_number(messages) == 3:
        raise ValueError("not a three")
    return more(messages)


POOL = swarm.Pool(
    [
        swarm.Expert.scripted("more", more),
        swarm.Expert.scripted("terse", more, prompt="compact"),
        swarm.Expert.scripted("picky", picky),
        swarm.Expert.scripted("warm", more, sampling=swarm.Sampling(temperature=1)),
    ],
    roles=[swarm.Role(name="counter", instructions="You count on.")],
)
CHAIN = chain(["more", "terse"])


def make_task(scorer: Any = "number", questions: Any = QUESTIONS, **splits: Any) -> swarm.Task:
    return swarm.Task.from_records("counting", scorer, test=questions, **splits)


TASK = make_task()


def record(store: str | Store, graph: AgentGraph = CHAIN, task: swarm.Task = TASK) -> int:
    [evaluation] = swarm.evaluate([graph], task, POOL, store=store, runtime=swarm.Runtime())
    assert evaluation.run is not None
    return evaluation.run


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "swarm.db")


@pytest.fixture
def no_engines(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Once it is there, no engine can be made."""

    def refuse(name: str, **options: Any) -> None:
        raise AssertionError(f"the engine `{name}` was made")

    monkeypatch.setattr(residency, "create_engine", refuse)
    return monkeypatch


@pytest.fixture
def recorded(store: str, request: pytest.FixtureRequest) -> str:
    """A store whose run 1 is the evaluation of a chain; from here on no engine can be made."""
    record(store)
    request.getfixturevalue("no_engines")
    return store


def change(store: str, statement: str, *values: Any) -> None:
    """Changes one row behind the store's back."""
    database = sqlite3.connect(store)
    with database:
        assert database.execute(statement, values).rowcount == 1
    database.close()


def key(store: str, trace: int, agent: int) -> bytes:
    with Store.open(store) as opened:
        found = opened.trace(1, trace).calls[agent].key
    assert found is not None
    return found


def diverging(store: str, task: swarm.Task | None = TASK) -> DivergenceError:
    with pytest.raises(DivergenceError) as caught:
        replay(store, 1, task=task)
    return caught.value


def test_replay_of_an_evaluation(recorded: str) -> None:
    report = replay(recorded, 1, task=TASK)
    assert report == ReplayReport(
        run=2, replayed=1, evaluations=1, traces=5, prompts=10, failed=0, scores=5, notes=()
    )


def test_replay_is_a_run_itself(recorded: str) -> None:
    number = replay(recorded, 1, task=TASK).run
    with Store.open(recorded) as store:
        run = store.run(number)
    assert (run.kind, run.parent, run.status) == ("replay", 1, "done")
    assert run.summary is not None
    assert run.summary["prompts"] == 10
    with pytest.raises(InputError, match="run 2 is itself a replay: replay run 1"):
        replay(recorded, number)


@pytest.mark.parametrize(
    "graph",
    [
        star(["more", "picky", "terse"]),
        debate(["more", "picky"], 2, "terse"),
        debate(["warm", "more"], 2, "warm"),
        chain(["warm", "warm", "warm"]),
        chain(["more", "terse", "more"], roles=["counter", "judge", "planner"]),
    ],
)
def test_replay_of_other_graphs(store: str, graph: AgentGraph, request: Any) -> None:
    record(store, graph)
    request.getfixturevalue("no_engines")
    report = replay(store, 1, task=TASK)
    assert report.prompts + report.failed <= len(graph.agents) * 5
    assert report.scores == 5


EXPERTS = st.sampled_from(sorted(POOL))


@st.composite
def graphs(draw: st.DrawFn) -> AgentGraph:
    """Any graph in which each agent but the last is read by one or more later ones."""
    size = draw(st.integers(1, 5))
    agents = [Agent(name=f"a{i}", expert=draw(EXPERTS)) for i in range(size)]
    edges = [
        (f"a{i}", f"a{j}")
        for i in range(size - 1)
        for j in sorted(draw(st.sets(st.integers(i + 1, size - 1), min_size=1)))
    ]
    return AgentGraph(agents=tuple(agents), edges=tuple(edges))


@settings(max_examples=15, deadline=None)
@given(st.lists(graphs(), min_size=1, max_size=3))
def test_whatever_was_recorded_replays(several: list[AgentGraph]) -> None:
    with Store.open("sqlite://") as store:
        swarm.evaluate(several, TASK, POOL, store=store, runtime=swarm.Runtime())
        report = replay(store, 1, task=TASK)
        assert report.evaluations == len(several)
        assert report.scores == 5 * len(several)


def test_failed_calls_replay_as_failures(store: str, request: Any) -> None:
    record(store, chain(["more", "picky", "terse"]))
    request.getfixturevalue("no_engines")
    report = replay(store, 1, task=TASK)
    assert report.failed == 1, "of `picky`, for which 2 + 1 is a three"
    assert report.prompts == 3 * 5 - 2, "its own, and that of the agent after it"
    assert report.notes == ("prompts of failed calls are not recorded: 1 not checked",)


def test_replay_of_a_job(store: str, request: Any) -> None:
    task = make_task(dev=[{**q, "question": f"{q['question']} on"} for q in QUESTIONS])
    how = {"particles": 3, "iterations": 2, "leave_out": 0.4}
    system = swarm.RoleStep(**how).fit(task, POOL, store=store, runtime=swarm.Runtime())
    request.getfixturevalue("no_engines")
    assert system.run == 1
    with Store.open(store) as opened:
        sizes = [evaluation.size for evaluation in opened.evaluations(1)]
    report = replay(store, 1, task=task)
    assert report.evaluations == len(sizes)
    assert report.scores == report.traces == sum(sizes)


def test_changed_answer_shows_in_the_prompt_of_who_reads_it(recorded: str) -> None:
    change(recorded, "UPDATE answers SET text = 'so it is 7' WHERE key = ?", key(recorded, 2, 0))
    error = diverging(recorded)
    assert (error.trace, error.agent) == (2, "terse")
    assert "so it is 3" in error.expected
    assert "so it is 7" in error.got
    assert "trace 2, agent `terse`: the prompt is not as recorded" in str(error)
    with Store.open(recorded) as store:
        run = store.runs(1)[0]
    assert (run.kind, run.parent, run.status) == ("replay", 1, "failed")
    assert run.error is not None
    assert "agent `terse`" in run.error


def test_changed_last_answer_shows_in_its_score(recorded: str) -> None:
    change(recorded, "UPDATE answers SET text = 'so it is 7' WHERE key = ?", key(recorded, 2, 1))
    error = diverging(recorded)
    assert (error.trace, error.agent, error.expected, error.got) == (2, None, "1.0", "0.0")
    assert str(error) == "trace 2: the score is not as recorded: expected `1.0`, got `0.0`"


def test_changed_score(recorded: str) -> None:
    change(recorded, "UPDATE traces SET score = 0 WHERE number = 3")
    error = diverging(recorded)
    assert (error.trace, error.expected, error.got) == (3, "0.0", "1.0")
    without = diverging(recorded, task=None)
    assert "the score of evaluation 1" in str(without), "the mean gives it away"


def test_changed_score_of_an_evaluation_or_a_run(recorded: str) -> None:
    change(recorded, "UPDATE runs SET summary = replace(summary, '\"score\":1.0', '\"score\":0.5')")
    assert "the run's score is not as recorded: expected `0.5`, got `1.0`" in str(
        diverging(recorded)
    )
    change(recorded, "UPDATE evaluations SET score = 0.25")
    assert "the score of evaluation 1" in str(diverging(recorded))


def test_changed_prompt(recorded: str) -> None:
    find = "(SELECT prompt FROM answers WHERE key = ?)"
    swap = f"UPDATE prompts SET messages = replace(messages, 'from', 'till') WHERE digest = {find}"
    change(recorded, swap, key(recorded, 4, 0))
    error = diverging(recorded)
    assert (error.trace, error.agent) == (4, "more")
    assert "count till 4" in error.expected
    assert "count from 4" in error.got


def test_changed_question(recorded: str) -> None:
    change(recorded, "UPDATE questions SET question = 'count from 9' WHERE example_id = 'q1'")
    assert (diverging(recorded).trace, diverging(recorded).got) == (1, "count from 1")
    without = diverging(recorded, task=None)
    assert (without.trace, without.agent) == (1, "more")


def test_changed_gold_answer(recorded: str) -> None:
    change(recorded, "UPDATE questions SET gold = '[\"9\"]' WHERE example_id = 'q1'")
    assert "trace 1: the gold answer is not as recorded" in str(diverging(recorded))


def test_answer_that_was_deleted(recorded: str) -> None:
    change(recorded, "DELETE FROM answers WHERE key = ?", key(recorded, 1, 1))
    error = diverging(recorded)
    assert (error.trace, error.agent) == (1, "terse")
    assert error.expected == "an answer that is not in the store"


def test_call_that_points_to_another_answer(recorded: str) -> None:
    other = key(recorded, 0, 1)
    change(recorded, "UPDATE calls SET key = ? WHERE number = 3 AND agent = 1", other)
    error = diverging(recorded)
    assert (error.trace, error.agent) == (3, "terse")


def test_answer_that_is_ascribed_to_another_draw(recorded: str) -> None:
    swap = "UPDATE answers SET key = ? WHERE key = ?"
    wrong = bytes(32)
    change(recorded, swap, wrong, key(recorded, 0, 1))
    change(recorded, "UPDATE calls SET key = ? WHERE number = 0 AND agent = 1", wrong)
    assert "the address (expert, prompt, draw)" in str(diverging(recorded))


def test_changed_wording(recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reworded = replace(prompt.COMPACT, previous="Somebody said {response}")
    monkeypatch.setitem(prompt.STYLES, "compact", reworded)
    error = diverging(recorded)
    assert (error.trace, error.agent) == (0, "terse"), "`more` is asked in another style"
    assert "1: so it is 1" in error.expected
    assert "Somebody said so it is 1" in error.got


def test_changed_role(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record(store, chain(["more", "more"], roles=["counter", "solver"]))
    assert replay(store, 1).prompts == 10, "the role's instructions are kept with the run"
    change(store, "UPDATE runs SET settings = replace(settings, 'count on', 'stop') WHERE id = 1")
    assert diverging(store).agent == "more"


def test_changed_task(recorded: str) -> None:
    exact = make_task("exact")
    assert "trace 0: the score is not as recorded" in str(diverging(recorded, exact))
    longer = make_task(questions=[*QUESTIONS, {"question": "count", "answer": "1", "id": "q9"}])
    report = replay(recorded, 1, task=longer)
    assert report.notes == ("the task `counting` has changed since, but not in what was compared",)
    shorter = make_task(questions=QUESTIONS[:4])
    assert "no such question in `test`" in diverging(recorded, shorter).got
    with pytest.raises(InputError, match="has no split `test`"):
        replay(recorded, 1, task=swarm.Task.from_records("other", "number", dev=QUESTIONS))


def test_replay_without_a_task_says_what_it_did_not_check(recorded: str) -> None:
    report = replay(recorded, 1)
    assert (report.prompts, report.scores) == (10, 0)
    assert report.notes == ("scores were not calculated anew, only their means: no task was given",)


def test_nothing_to_replay(store: str) -> None:
    with Store.open(store) as opened:
        run = opened.start_run("job", "empty", {})
    with pytest.raises(InputError, match=f"run {run} has no evaluations"):
        replay(store, run)
    with pytest.raises(InputError, match="there is no run 7"):
        replay(store, 7)
