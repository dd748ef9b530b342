"""Processes that are killed, and processes that meet."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import store_samples as samples
from sqlalchemy import create_engine, text

from swarm.errors import BusyError, StoreURLError
from swarm.store import Store, database

WRITER = """
import sys
import store_samples as samples
from swarm.store import Store

store = Store.open(sys.argv[1])
store.add_experts([samples.EXPERT])
run = store.start_run("job", "x", {})
print("started", flush=True)
for done in range(1_000_000):
    with store.transaction():
        store.add_answers(samples.answers_of(done, 20))
        store.add_evaluation(run, samples.evaluation(done, 20))
        store.save_state(run, {"done": done + 1})
    print(done + 1, flush=True)
"""

HOLDER = """
import sys
from swarm.store import Store

store = Store.open(sys.argv[1])
with store.lock_run(1):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(code, url):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", code, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize("commits", [0, 5])
def test_kill_9_loses_at_most_the_transaction_it_hit(url, commits):
    with process(WRITER, url) as child:
        assert child.stdout.readline() == "started\n"
        for _ in range(commits):
            child.stdout.readline()
        kill(child)
        promised = [int(line) for line in child.stdout.read().splitlines()] or [commits]
    with Store.open(url) as store:
        [run] = store.runs()
        assert run.status == "running"
        done = (store.state(run.id) or {"done": 0})["done"]
        assert done >= promised[-1]
        assert len(store.evaluations(run.id)) == done
        traces = list(store.traces(run.id))
        assert len(traces) == done * 20
        assert all(call.answer is not None for trace in traces for call in trace.calls)
        store.add_evaluation(run.id, samples.evaluation())
    if url.startswith("sqlite"):
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []


def test_a_run_has_one_process_and_is_free_when_that_is_killed(url, tmp_path):
    with Store.open(url) as store:
        run = store.start_run("job", "x", {})
        other = store.start_run("job", "y", {})
        with process(HOLDER, url) as child:
            assert child.stdout.readline() == "held\n"
            with (
                pytest.raises(BusyError, match=f"run 1 is being .* process {child.pid}\\b"),
                store.lock_run(run),
            ):
                pass
            with store.lock_run(other):
                pass
            store.save_state(run, {"reading and writing": "are free"})
            kill(child)
        with store.lock_run(run):
            pass
        assert not list(tmp_path.glob("*.lock"))


def test_a_lock_is_let_go_when_its_block_is_left(url):
    with Store.open(url) as store, Store.open(url) as other:
        run = store.start_run("job", "x", {})
        with suppress(RuntimeError), store.lock_run(run):
            with pytest.raises(BusyError, match=f"process {os.getpid()}"), other.lock_run(run):
                pass
            raise RuntimeError
        with other.lock_run(run):
            pass


def test_a_run_in_memory_has_nobody_to_share_with():
    with Store.open("sqlite://") as store, store.lock_run(store.start_run("job", "x", {})):
        pass


def test_a_new_store_may_be_opened_by_several_at_once(url):
    barrier = threading.Barrier(4)
    runs = []

    def work():
        barrier.wait()
        with Store.open(url) as store:
            runs.append(store.start_run("job", "x", {}))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs) == [1, 2, 3, 4]


@pytest.fixture
def taken(tmp_path):
    """A new file that another program has begun to write to: the file, and that connection."""
    path = tmp_path / "taken.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield path, other


def test_a_new_file_that_another_writes_to_is_waited_for(taken, monkeypatch):
    path, other = taken
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr(database.time, "sleep", sleep)
    with Store.open(path) as store:
        assert store.start_run("job", "x", {}) == 1
    assert len(waits) == 1
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_new_file_that_another_goes_on_writing_to_is_not_waited_for_for_ever(taken):
    path, _ = taken
    with pytest.raises(StoreURLError, match=r"database is locked .*try again when it is done"):
        Store.open(path, timeout=0)
