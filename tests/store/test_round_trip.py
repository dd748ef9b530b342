"""What is recorded is read back as it was, whatever it is."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import store_samples as samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from swarm.errors import InputError
from swarm.store import QuestionRecord
from swarm.store.types import escape, unescape

# One store serves all examples: they do not see each other.
shared = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(samples.texts)
def test_escaped_text_is_what_every_database_can_hold_and_nothing_is_lost(text):
    escaped = escape(text)
    escaped.encode("utf-8")
    assert "\0" not in escaped
    assert unescape(escaped) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1a")))
def test_ordinary_text_is_stored_as_it_is(text):
    assert escape(text) == text


@shared
@given(samples.evaluations())
def test_an_evaluation(store, record):
    run = store.start_run("evaluation", "x", {})
    evaluation = store.add_evaluation(run, record)
    assert store.recorded(evaluation) == record
    [view] = store.evaluations(run)
    assert (view.id, view.run, view.size) == (evaluation, run, len(record.positions))
    for field in ("graph", "split", "task", "score", "info"):
        assert getattr(view, field) == getattr(record, field)


@shared
@given(st.lists(samples.evaluations(), max_size=4))
def test_many_evaluations_at_once(store, records):
    run = store.start_run("evaluation", "x", {})
    numbers = store.add_evaluations(run, records)
    assert [view.id for view in store.evaluations(run)] == numbers
    assert [store.recorded(number) for number in numbers] == records


@shared
@given(st.lists(samples.answers, max_size=4))
def test_answers(store, records):
    store.add_experts([samples.EXPERT])
    store.add_answers(records)
    keys = [record.key for record in records]
    assert store.answers(keys) == {record.key: record for record in records}
    assert store.known(keys) == {record.key: record.response for record in records}


@shared
@given(st.lists(arrays("<f4", st.integers(1, 5), elements=st.floats(width=32)), max_size=4))
def test_vectors(store, rows):
    vectors = {hashlib.blake2b(row.tobytes(), digest_size=32).digest(): row for row in rows}
    store.add_vectors(vectors)
    store.add_vectors({key: row[::-1] + 1 for key, row in vectors.items()})  # the first one stays
    found = store.vectors([*vectors, b"nobody's".ljust(32)])
    assert found.keys() == vectors.keys()
    for key, row in vectors.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], row)


@shared
@given(st.lists(samples.experts, max_size=3, unique_by=lambda expert: expert.fingerprint))
def test_experts(store, records):
    before = store.experts([record.fingerprint for record in records])
    store.add_experts(records)
    assert (
        store.experts([record.fingerprint for record in records])
        == {record.fingerprint: record for record in records} | before
    )


@shared
@given(st.lists(samples.batches, max_size=3))
def test_batches(store, records):
    run = store.start_run("job", "x", {})
    ids = store.add_batches(run, records)
    views = store.batches(run)
    assert [view.batch for view in views] == records
    assert [view.id for view in views] == ids


@shared
@given(samples.texts, samples.json_objects, samples.json_objects, st.none() | samples.texts)
def test_a_run(store, name, configured, outcome, error):
    run = store.start_run("job", name, configured, key=b"key")
    store.save_state(run, outcome)
    store.finish_run(run, "failed", outcome, error)
    view = store.run(run)
    assert (view.name, view.settings, view.summary, view.error) == (
        name,
        configured,
        outcome,
        error,
    )
    assert view.status == "failed"
    assert view.created_at <= view.updated_at
    assert view.created_at.utcoffset().total_seconds() == 0
    assert store.state(run) == outcome


@shared
@given(samples.questions, samples.questions)
def test_different_questions_have_different_digests(one, other):
    assert (one.digest == other.digest) == (one == other)


def test_a_state_may_hold_what_is_not_a_number(store):
    run = store.start_run("job", "x", {})
    store.save_state(run, {"best": -math.inf, "velocity": [math.nan, 0.1 + 0.2]})
    state = store.state(run)
    assert state["best"] == -math.inf
    assert math.isnan(state["velocity"][0])
    assert state["velocity"][1] == 0.1 + 0.2


def test_the_first_answer_under_a_key_stays(store):
    store.add_experts([samples.EXPERT])
    store.add_answers([samples.answer("x", "first")])
    store.add_answers([samples.answer("x", "second"), samples.answer("y", "third")])
    texts = {
        key: response.text
        for key, response in store.known([samples.key("x"), samples.key("y")]).items()
    }
    assert texts == {samples.key("x"): "first", samples.key("y"): "third"}


def test_known_answers_of_more_keys_than_a_query_can_hold(store):
    store.add_experts([samples.EXPERT])
    store.add_answers([samples.answer(i, str(i)) for i in range(0, 2500, 2)])
    found = store.known([samples.key(i) for i in range(2500)] * 2)
    assert {key: response.text for key, response in found.items()} == {
        samples.key(i): str(i) for i in range(0, 2500, 2)
    }


def test_a_trace_is_read_whole(store):
    run = store.start_run("evaluation", "x", {})
    store.add_experts([samples.EXPERT])
    [batch] = store.add_batches(run, [samples.batch()])
    known = samples.answer("x a 0", "a says 0", batch)
    store.add_answers([known])
    store.add_evaluation(
        run,
        samples.evaluation(
            "x",
            questions=1,
            positions=[17],
            errors={0: "the judge failed"},
            call_errors={(1, 0): "too long"},
        ),
    )
    trace = store.trace(run, 0)
    assert trace.question == QuestionRecord("q0", "What is 0?", ["0"])
    assert (trace.position, trace.score, trace.error) == (17, 0.5, "the judge failed")
    assert trace.graph == samples.CHAIN
    first, second = trace.calls
    assert first.agent == samples.CHAIN.agents[0]
    assert first.expert == samples.EXPERT
    assert first.answer == known
    assert (first.cached, first.error) == (False, None)
    assert (second.answer, second.expert, second.error) == (None, None, "too long")
    assert trace.answer is None


def test_the_answer_of_a_trace_is_the_end_agents_response_unless_another_was_scored(store):
    run = store.start_run("evaluation", "x", {})
    store.add_experts([samples.EXPERT])
    store.add_answers(samples.answers_of("x", 3))
    store.add_evaluation(run, samples.evaluation("x", 3, answers=[None, "B", ""]))
    assert [trace.answer for trace in store.traces(run)] == ["b says 0", "B", ""]


def test_traces_are_counted_over_all_evaluations_of_a_run(store):
    run, other = (store.start_run("job", name, {}) for name in "xy")
    store.add_experts([samples.EXPERT])
    evaluations = []
    for name, size in (("first", 2), ("empty", 0), ("second", 3)):
        store.add_answers(samples.answers_of(name, size))
        evaluations.append(store.add_evaluation(run, samples.evaluation(name, size)))
        store.add_evaluation(other, samples.evaluation(name, 1))
    traces = list(store.traces(run))
    assert [trace.number for trace in traces] == [0, 1, 2, 3, 4]
    assert [store.trace(run, number) for number in range(5)] == traces
    assert [trace.evaluation for trace in traces] == [evaluations[0]] * 2 + [evaluations[2]] * 3
    assert list(store.traces(run, evaluations[2])) == traces[2:]
    for number in (-1, 5):
        with pytest.raises(InputError, match=r"has no trace .*: it has the traces 0 to 4"):
            store.trace(run, number)
    with pytest.raises(InputError, match="evaluation 2 is not one of run 1"):
        store.traces(run, 2)


def test_runs_come_newest_first_and_what_is_missing_says_what_there_is(store):
    with pytest.raises(InputError, match="there is no run 1 in this store: nothing has been rec"):
        store.run(1)
    first = store.start_run("job", "x", {})
    second = store.start_run("replay", "y", {}, parent=first)
    assert [view.id for view in store.runs()] == [second, first]
    assert [view.parent for view in store.runs(limit=1)] == [first]
    for ask in (store.run, store.state, store.batches, store.evaluations, store.traces):
        with pytest.raises(
            InputError, match=f"there is no run 99 in this store: the latest is {second}"
        ):
            ask(99)
    with pytest.raises(InputError, match="no run 99"):
        store.finish_run(99, "done")
    with pytest.raises(InputError, match="no evaluation 99"):
        store.recorded(99)


def test_a_job_is_found_by_its_key_and_goes_on(store):
    assert store.find_job(b"k") is None
    store.start_run("job", "older", {}, key=b"k")
    run = store.start_run("job", "x", {}, key=b"k")
    store.start_run("job", "y", {}, key=b"other")
    assert store.state(run) is None
    store.finish_run(run, "interrupted", error="Ctrl-C")
    assert store.find_job(b"k").id == run
    store.resume_run(run)
    assert (store.find_job(b"k").status, store.run(run).error) == ("running", None)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"scores": [0.5]}, "every column must have one entry for each of 3 `positions`"),
        ({"keys": [[None] * 3]}, "`keys` has 1 columns and `cached` 2: give one for each of"),
        ({"score": math.nan}, "a score is not a number"),
        ({"scores": [0.5, math.nan, 0.5]}, "a score is not a number"),
    ],
)
def test_an_evaluation_whose_columns_do_not_fit_is_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        samples.evaluation(**changes)


def test_a_time_without_zone_is_refused(store):
    run = store.start_run("job", "x", {})
    naive = samples.batch().started_at.replace(tzinfo=None)
    with pytest.raises(Exception, match="has no time zone"):
        store.add_batches(run, [samples.batch(started_at=naive)])
