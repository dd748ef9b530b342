"""What is written together is kept together, or not at all, whatever fails."""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
import store_samples as samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event, make_url, text

from swarm.errors import StoreError
from swarm.store import Store


def contents(store: Store) -> list[object]:
    """Everything a reader can see."""
    runs = store.runs()
    return [
        (
            run,
            store.state(run.id),
            store.batches(run.id),
            store.evaluations(run.id),
            list(store.traces(run.id)),
        )
        for run in runs
    ]


def write(store: Store, run: int, step: str, name: object) -> None:
    match step:
        case "answers":
            store.add_answers(samples.answers_of(name))
        case "evaluation":
            store.add_evaluation(run, samples.evaluation(name, questions=2))
        case "batches":
            store.add_batches(run, [samples.batch(), samples.batch(wave=1)])
        case "state":
            store.save_state(run, {"step": str(name)})
        case "run":
            store.start_run("job", "another", {})
        case "finish":
            store.finish_run(run, "done", {"score": 1.0})
        case "nested":
            with store.transaction():
                write(store, run, "evaluation", name)
                write(store, run, "state", name)


def write_all(store, run, steps, failure=None):
    with store.transaction():
        for i, step in enumerate(steps):
            write(store, run, step, i)
        if failure is not None:
            raise failure
        return contents(store)


steps = st.lists(
    st.sampled_from(["answers", "evaluation", "batches", "state", "run", "finish", "nested"]),
    max_size=5,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps, st.sampled_from([RuntimeError, KeyboardInterrupt]))
def test_a_transaction_that_fails_leaves_nothing_and_one_that_does_not_leaves_all(
    store, steps, failure
):
    run = store.start_run("job", "x", {})
    store.add_experts([samples.EXPERT])
    before = contents(store)
    with pytest.raises(failure):
        write_all(store, run, steps, failure)
    assert contents(store) == before
    inside = write_all(store, run, steps)
    assert contents(store) == inside
    assert len(store.evaluations(run)) == sum(step in ("evaluation", "nested") for step in steps)


def test_an_inner_failure_undoes_the_outer_transaction_even_if_it_is_caught(store):
    run = store.start_run("job", "x", {})

    def work():
        with store.transaction():
            store.save_state(run, {"step": 1})
            with suppress(RuntimeError), store.transaction():
                raise RuntimeError

    with pytest.raises(StoreError, match="a part of this transaction failed"):
        work()
    assert store.state(run) is None


def test_what_refers_to_nothing_is_refused_and_the_store_goes_on(store):
    run = store.start_run("job", "x", {})

    def work():
        with store.transaction():
            store.save_state(run, {"step": 1})
            store.add_answers([samples.answer("of an expert that was not stored")])

    with pytest.raises(StoreError, match=r"the store .* failed: .*constraint"):
        work()
    assert store.state(run) is None
    store.add_experts([samples.EXPERT])
    store.add_answers([samples.answer("x")])
    assert len(store.known([samples.key("x")])) == 1


def test_others_see_a_transaction_when_it_is_complete(url):
    with Store.open(url) as writer, Store.open(url) as reader:
        run = writer.start_run("job", "x", {})
        with writer.transaction():
            writer.save_state(run, {"step": 1})
            writer.add_evaluation(run, samples.evaluation())
            assert reader.state(run) is None
            assert reader.evaluations(run) == []
            assert writer.state(run) == {"step": 1}
        assert reader.state(run) == {"step": 1}
        assert len(reader.evaluations(run)) == 1


def test_while_another_writes_one_waits_and_then_says_so(tmp_path):
    path = tmp_path / "swarm.db"
    with Store.open(path) as store, Store.open(path, timeout=0.01) as impatient:
        run = store.start_run("job", "x", {})
        with (
            store.transaction(),
            pytest.raises(StoreError, match="another process is writing to it: try again"),
        ):
            impatient.save_state(run, {"step": 1})
        impatient.save_state(run, {"step": 2})
        assert store.state(run) == {"step": 2}


def test_the_same_row_written_by_two_on_a_server(postgres_url):
    with Store.open(postgres_url) as store, Store.open(postgres_url, timeout=0.01) as impatient:
        run = store.start_run("job", "x", {})
        with store.transaction():
            store.save_state(run, {"step": 1})
            with pytest.raises(StoreError, match="another process is writing to it: try again"):
                impatient.save_state(run, {"step": 2})
        assert store.state(run) == {"step": 1}


def test_a_full_disk_loses_only_the_transaction_that_did_not_fit(tmp_path):
    path = tmp_path / "swarm.db"

    def limit(raw, _):
        raw.execute("PRAGMA max_page_count = 120")

    def fill(store, run):
        for written in itertools.count():
            with store.transaction():
                store.add_answers(samples.answers_of(written, 30))
                store.add_evaluation(run, samples.evaluation(written, 30))
                store.save_state(run, {"written": written + 1})

    with Store.open(path) as store:
        run = store.start_run("job", "x", {})
        store.add_experts([samples.EXPERT])
    event.listen(Engine, "connect", limit)
    try:
        with Store.open(path) as store:
            with pytest.raises(StoreError, match="disk is full") as failure:
                fill(store, run)
            assert "\n" not in str(failure.value)
            written = len(store.evaluations(run))
            assert written > 0
            assert store.state(run) == {"written": written}
    finally:
        event.remove(Engine, "connect", limit)
    with Store.open(path) as store:
        assert store.state(run) == {"written": written}
        traces = list(store.traces(run))
        assert len(traces) == written * 30
        assert all(call.answer is not None for trace in traces for call in trace.calls)
        store.add_evaluation(run, samples.evaluation(written, 30))
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_noticed_before_anything_is_said_to_be_kept(tmp_path, fate):
    path = tmp_path / "swarm.db"
    with Store.open(path) as store:
        run = store.start_run("job", "x", {})
        path.rename(tmp_path / "elsewhere.db")
        if fate == "replaced":
            Path(path).write_bytes(b"")
        with pytest.raises(StoreError, match="was moved or deleted while in use"):
            store.save_state(run, {"step": 1})


def test_a_server_that_hangs_up_loses_only_the_transaction(postgres_url):
    engine = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"))

    def hang_up():
        with engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE application_name LIKE 'swarm, process {os.getpid()} %'"
                )
            )

    def work():
        with store.transaction():
            store.save_state(run, {"step": 2})
            hang_up()
            store.save_state(run, {"step": 3})

    with Store.open(postgres_url) as store:
        run = store.start_run("job", "x", {})
        store.save_state(run, {"step": 1})
        with pytest.raises(StoreError, match=r"the store .* failed: "):
            work()
        assert store.state(run) == {"step": 1}
        store.save_state(run, {"step": 4})
        assert store.state(run) == {"step": 4}
    engine.dispose()
