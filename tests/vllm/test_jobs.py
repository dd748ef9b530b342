"""Whole jobs on a real vLLM: the search is that with transformers, whatever is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from real_server import ZOO, at

import swarm
from swarm.runtime.progress import Silent

NAMES = ("times_lo", "plus_hi", "minus_lo", "double", "mirror")
SETTINGS = {"particles": 4, "iterations": 2, "patience": 2, "seed": 1}
LIMIT = 20
CONCURRENCY = 16


def fit(pool, store, engines=None, **settings):
    task = swarm.Task.load(ZOO / "relay.toml")
    job = swarm.RoleStep(**{**SETTINGS, **settings})
    runtime = swarm.Runtime(engines)
    return job.fit(
        task, pool.subset(*NAMES), limit=LIMIT, store=store, runtime=runtime, progress=Silent()
    )


def outcome(url):
    """What jobs must have in common that differ in how they came about."""
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        state = store.state(run.id)
        scores = [entry["role"]["scores"] for entry in state["history"]]
        asked = sum(view.batch.requests for view in store.batches(run.id))
        return run.status, state["best"], scores, asked


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'swarm.db'}"


@pytest.fixture(scope="module")
def expected(pool, transformers, tmp_path_factory):
    """What the job comes to with the transformers engine."""
    url = f"sqlite:///{tmp_path_factory.mktemp('expected') / 'swarm.db'}"
    fit(pool, url, {"transformers": transformers})
    return outcome(url)


def test_in_this_process(expected, in_process, engine, url):
    fit(in_process, url, {"vllm": engine})
    assert outcome(url) == expected


def test_at_a_server(expected, served, url):
    fit(served, url)
    assert outcome(url) == expected


FIT = """
import sys
sys.path[:0] = sys.argv[3:]
from test_jobs import fit
import swarm
fit(swarm.Pool.load(sys.argv[1]), sys.argv[2])
"""


def test_a_job_that_is_killed_goes_on_and_ends_the_same(expected, served, server, url, tmp_path):
    lines = ["[defaults]", 'engine = "server"', 'prompt = "compact"']
    lines += [f'options = {{ url = "{server.url}", deadline = 300 }}', "sampling.max_tokens = 24"]
    for name in NAMES:
        lines += ["[[experts]]", f'name = "{name}"', f'model = "openai/{name}"']
    (tmp_path / "pool.toml").write_text("\n".join(lines))
    folders = [str(Path(__file__).parent)]
    command = [sys.executable, "-c", FIT, str(tmp_path / "pool.toml"), url, *folders]
    before = server.answered()
    with subprocess.Popen(command) as job:
        wait_for(lambda: server.answered() > before + 150 or job.poll() is not None)
        assert job.poll() is None
        job.kill()
    fit(swarm.Pool.load(tmp_path / "pool.toml"), url)
    status, best, scores, asked = outcome(url)
    assert (status, best, scores) == expected[:3]
    assert asked <= expected[3]


def test_a_server_that_is_killed_is_asked_again_but_never_for_what_it_answered(
    expected, pool, server, url
):
    experts = [at(server, expert, concurrency=CONCURRENCY) for expert in pool.values()]
    before = server.answered()
    job = threading.Thread(target=fit, args=(swarm.Pool(experts), url))
    job.start()
    try:
        wait_for(lambda: server.answered() > before + 150 or not job.is_alive())
        assert job.is_alive()
        first = server.answered() - before
    finally:
        server.kill()
        server.start()
    server.wait()
    job.join()
    status, best, scores, asked = outcome(url)
    assert (status, best, scores, asked) == expected
    # Between the count and the end it may have answered some more. Of all that it answered only
    # what was on its way to us may have been lost, and asked again.
    second = server.answered()
    lost = len(NAMES) * CONCURRENCY
    assert asked - lost <= first + second <= asked + lost


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
