"""The joint job and its store: no room, gone, hung up, taken. It says so, and goes on later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import relay_job
from sqlalchemy import Engine, create_engine, event, make_url, text

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.errors import StoreError
from swarm.runtime.progress import Silent

SETTINGS = {"particles": 4, "assignments": 3, "iterations": 4, "patience": 4, "seed": 1}


class Meddling(ScriptedEngine):
    """Does something before it answers the k-th time."""

    def __init__(self, k, what):
        self.k, self.what = k, what

    async def generate(self, requests):
        self.k -= 1
        if self.k == 0:
            self.what()
        return await super().generate(requests)


def fit(store, k=0, what=None):
    runtime = swarm.Runtime({"scripted": Meddling(k, what)})
    job = swarm.HeterogeneousSwarm(**SETTINGS)
    return job.fit(
        relay_job.task(), relay_job.pool(), store=str(store), runtime=runtime, progress=Silent()
    )


def refusal(store, k=0, what=None):
    """What the job is left with; None if it ends well."""
    try:
        fit(store, k, what)
    except StoreError as error:
        return str(error)
    return None


def outcome(store):
    """All of a job that must not depend on what happened to it."""
    with swarm.Store.open(str(store)) as opened:
        [run] = opened.runs()
        state = opened.state(run.id)
        for entry in state["history"]:
            del entry["spared"]["known"], entry["spared"]["shared"]
        asked = sum(view.batch.requests for view in opened.batches(run.id))
        evaluations = [(v.graph, v.score, v.size, v.info) for v in opened.evaluations(run.id)]
        return run.status, state, evaluations, asked


def check(path):
    """An SQLite file is sound, and none of its companions are left."""
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
    assert [each.name for each in path.parent.glob(f"{path.name}*")] == [path.name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A job that nothing happens to."""
    path = tmp_path_factory.mktemp("whole") / "swarm.db"
    fit(path)
    return outcome(path)


@contextmanager
def pages(count):
    """SQLite files have no room for more than so many pages."""

    def limit(raw, _):
        raw.execute(f"PRAGMA max_page_count = {count}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


FULL = "database or disk is full (free some space, then run the same command again)"


def test_a_job_goes_on_when_there_is_room_again(whole, tmp_path):
    """Wherever the room ends: each time there is a little more of it."""
    path, said = tmp_path / "swarm.db", []
    swarm.Store.open(str(path)).close()
    with closing(sqlite3.connect(path)) as raw:
        [[count]] = raw.execute("PRAGMA page_count")
    while None not in said:
        with pages(count + 4 * len(said)):
            said.append(refusal(path))
        check(path)
    assert outcome(path) == whole
    assert len(said) > 5
    assert set(said[:-1]) == {f"the store `sqlite:///{path}` failed: {FULL}"}


TINY = """
mount -t tmpfs -o size=$3 none "$2" || exit 77
"$1" -c "$4" "$2/swarm.db" 2> "$5/said"
code=$?
cp "$2"/* "$5" && exit $code
"""
"""Runs a job on a file system of its own, and takes away what it has left there."""
FIT = """
import sys
sys.path.insert(0, {folder!r})
from swarm.errors import StoreError
from test_kill_store import fit
try:
    fit(sys.argv[1])
except StoreError as error:
    sys.exit(f"StoreError: {{error}}")
"""


@pytest.mark.parametrize("size", ["160k", "400k"])
def test_a_job_on_a_disk_that_is_really_full(whole, tmp_path, size):
    if shutil.which("unshare") is None:
        pytest.skip("needs `unshare`")
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    code = FIT.format(folder=str(Path(__file__).parent))
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", TINY, "sh", sys.executable, disk, size, code, kept],
        capture_output=True,
        text=True,
    )
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip("no file system may be mounted here")
    assert ended.returncode == 1, ended.stderr
    [said] = (kept / "said").read_text().splitlines()
    assert FULL in said
    fit(kept / "swarm.db")
    assert outcome(kept / "swarm.db") == whole
    check(kept / "swarm.db")


GONE = "was moved or deleted while in use: put it back, or start again with a new one"


@pytest.mark.parametrize("k", [1, 4, 9, 16])
def test_a_store_that_was_moved_can_be_put_back(whole, tmp_path, k):
    path, elsewhere = tmp_path / "swarm.db", tmp_path / "elsewhere.db"
    assert GONE in refusal(path, k, lambda: path.rename(elsewhere))
    elsewhere.rename(path)
    fit(path)
    assert outcome(path) == whole
    check(path)


@pytest.mark.parametrize("k", [1, 4, 9, 16])
def test_a_store_that_was_moved_with_its_folder_goes_on_there(whole, tmp_path, k):
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    folder.mkdir()
    assert GONE in refusal(folder / "swarm.db", k, lambda: folder.rename(elsewhere))
    fit(elsewhere / "swarm.db")
    assert outcome(elsewhere / "swarm.db") == whole


@pytest.mark.parametrize("k", [1, 4, 9, 16])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_store_that_was_deleted_can_be_begun_anew(whole, tmp_path, k, what):
    path = tmp_path / "folder" / "swarm.db"
    path.parent.mkdir()
    delete = path.unlink if what == "file" else lambda: shutil.rmtree(path.parent)
    assert GONE in refusal(path, k, delete)
    path.parent.mkdir(exist_ok=True)
    fit(path)
    assert outcome(path) == whole
    check(path)


@pytest.fixture
def hang_up(postgres_url):
    """Ends this process's connections to the server, or those that hold an advisory lock."""
    engine = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"))
    mine = f"application_name LIKE 'swarm, process {os.getpid()} %'"

    def hang_up(only="true"):
        with engine.connect() as connection:
            ended = connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE {mine} AND {only}"
                )
            )
            assert ended.all()

    yield hang_up
    engine.dispose()


@pytest.mark.parametrize("k", [1, 4, 9, 16])
def test_a_server_that_hangs_up(whole, postgres_url, hang_up, k):
    said = refusal(postgres_url, k, hang_up)
    assert "terminating connection" in said
    assert "check that the server is running, then run it again" in said
    fit(postgres_url)
    assert outcome(postgres_url) == whole


def test_a_job_that_has_lost_only_its_lock_goes_on(whole, postgres_url, hang_up):
    held = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    fit(postgres_url, 9, lambda: hang_up(held))
    assert outcome(postgres_url) == whole


JOB = """
optimizer = "hetero_swarm"
pool = "pool.toml"
task = "task.toml"
store = "swarm.db"

[settings]
particles = 2
assignments = 2
iterations = 2
"""
POOL = """
[[experts]]
name = "a"
engine = "scripted"
model = "script.py:speak"

[[experts]]
name = "b"
engine = "scripted"
model = "script.py:listen"
"""
TASK = """
name = "say"
scorer = "exact"

[splits]
dev = "dev.jsonl"
"""
SCRIPT = '''
import functools, sys

@functools.cache
def wait():
    """Says that the job is at work, and works on when it is told to."""
    print("at work", file=sys.stderr, flush=True)
    sys.stdin.readline()

def speak(messages):
    wait()
    return "yes"

def listen(messages):
    wait()
    return "no"
'''
OPTIMIZE = [sys.executable, "-c", "from swarm.app.cli import main; main()", "optimize", "job.toml"]


@pytest.fixture
def folder(tmp_path):
    files = {"job.toml": JOB, "pool.toml": POOL, "task.toml": TASK, "script.py": SCRIPT}
    files["dev.jsonl"] = json.dumps({"question": "yes?", "answer": "yes"}) + "\n"
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@contextmanager
def at_work(folder):
    """A process that is at work on the job, and stays there until it is told to go on."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        OPTIMIZE, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert any(line == "at work\n" for line in process.stderr)
            yield process
        finally:
            process.kill()


def optimize(folder):
    return subprocess.run(
        OPTIMIZE, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def test_of_two_processes_with_one_job_the_second_is_told_so_at_once(folder):
    with at_work(folder) as first:
        second = optimize(folder)
        assert first.poll() is None
        assert second.returncode == 1
        assert second.stdout == ""
        [line] = second.stderr.splitlines()
        assert f"run 1 is being worked on by process {first.pid}: wait for it, or stop it" in line
        first.communicate("go on\n")
        assert first.returncode == 0
    assert optimize(folder).stdout.startswith("this job was done before")


def test_a_process_that_was_killed_holds_nobody_up(folder):
    with at_work(folder) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    second = optimize(folder)
    assert second.returncode == 0, second.stderr
    with swarm.Store.open(str(folder / "swarm.db")) as store:
        assert [(run.id, run.status) for run in store.runs()] == [(1, "done")]
