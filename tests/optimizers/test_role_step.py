"""`RoleStep`: it finds better graphs, repeats itself from a seed, and survives anything."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import relay_job
from relay_job import Counting

import swarm
from swarm.errors import BusyError, ConfigError, EngineError, InputError, PoolError, TaskError
from swarm.optimizers.role_step import random_graphs
from swarm.runtime.progress import Silent

SCRIPT = Path(relay_job.__file__)


def fit(store=None, engine=None, **settings):
    engine = engine or Counting()
    runtime = swarm.Runtime({"scripted": engine})
    return relay_job.job(**settings).fit(
        relay_job.task(), relay_job.pool(), store=store, runtime=runtime, progress=Silent()
    )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'swarm.db'}"


def outcome(url):
    """What an interrupted job must have in common with one that was not."""
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        state = store.state(run.id)
        asked = sum(view.batch.requests for view in store.batches(run.id))
        scores = {view.graph.digest: view.score for view in store.evaluations(run.id)}
        history = [entry["role"]["scores"] for entry in state["history"]]
        return run.status, state["search"], state["best"], history, scores, asked


def test_finds_better_graphs_than_it_started_with(tmp_path):
    better = 0
    for seed in range(4):
        url = f"sqlite:///{tmp_path / f'{seed}.db'}"
        found = fit(url, particles=10, iterations=10, patience=10, top_p=0.3, seed=seed)
        history = outcome(url)[3]
        score = found.evaluate(relay_job.task(), "dev").score
        assert score == max(map(max, history))
        assert sorted(found.graph.experts) == sorted(relay_job.LETTERS)
        better += score > max(history[0])
    assert better >= 3


def test_same_seed_same_graph_and_another_seed_another_search(url, tmp_path):
    fit(url)
    fit(f"sqlite:///{tmp_path / 'again.db'}")
    fit(f"sqlite:///{tmp_path / 'other.db'}", seed=4)
    first = outcome(url)
    assert outcome(f"sqlite:///{tmp_path / 'again.db'}") == first
    assert outcome(f"sqlite:///{tmp_path / 'other.db'}")[3] != first[3]


@pytest.mark.parametrize("top_p", [0.0, 0.5])
def test_without_a_store_it_finds_the_same(url, top_p):
    assert fit(top_p=top_p).graph == fit(url, top_p=top_p).graph


def test_remembering_scores_changes_nothing_but_the_work(url, tmp_path):
    other = f"sqlite:///{tmp_path / 'forgetful.db'}"
    fit(url)
    fit(other, memoise=False)
    assert outcome(url)[1:3] == outcome(other)[1:3]


def test_all_particles_of_an_iteration_go_through_the_scheduler_together(url):
    fit(url, iterations=1)
    with swarm.Store.open(url) as store:
        waves = {view.batch.wave for view in store.batches(1)}
        deepest = max(view.graph.depth for view in store.evaluations(1))
    assert len(waves) <= deepest


def test_the_same_call_again_asks_nothing(url):
    engine = Counting()
    first = fit(url, engine)
    asked = engine.asked
    assert asked > 0
    again = fit(url, engine)
    assert again.graph == first.graph
    assert again.run == first.run
    assert engine.asked == asked


@pytest.mark.parametrize("when", [0, 3, 11, 20])
def test_an_interrupted_job_goes_on_where_it_was(url, tmp_path, when):
    calls = iter(range(10**6))

    def interrupt(requests):
        if next(calls) == when:
            raise KeyboardInterrupt

    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(url, Counting(interrupt))
    with swarm.Store.open(url) as store:
        assert store.runs()[0].status == "interrupted"
    fit(url)
    assert outcome(url) == outcome(whole)


def test_a_killed_job_ends_where_one_that_was_not_killed_ends(url, tmp_path):
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    command = [sys.executable, str(SCRIPT), url, "0.001"]
    subprocess.run([sys.executable, str(SCRIPT), whole, "0.001"], check=True, capture_output=True)
    rng = random.Random(0)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.4 + 0.8 * rng.random())
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    assert kills >= 1
    assert outcome(url) == outcome(whole)


def test_a_second_process_is_told_that_the_job_is_taken(url):
    fit(url)
    with swarm.Store.open(url) as store:
        run = store.runs()[0].id
        with store.lock_run(run), pytest.raises(BusyError, match=r"\d+"):
            fit(url)


def test_another_setting_is_another_job(url):
    first = fit(url)
    assert fit(url, step=0.5).run != first.run


def test_a_question_that_fails_scores_nothing_and_the_job_goes_on(url):
    def speak(messages):
        if "abcdef" in messages[-1].content:
            raise RuntimeError("no such word")
        return relay_job.expert("f").script(messages)

    pool = relay_job.pool().subset(*"abcde")
    pool = swarm.Pool([*pool.values(), swarm.Expert.scripted("f", speak, prompt="compact")])
    found = relay_job.job(iterations=2).fit(relay_job.task(), pool, store=url, progress=Silent())
    summary = found.evaluate(relay_job.task(), "dev").summary()
    assert summary.failures == 1
    with swarm.Store.open(url) as store:
        failed = [t for t in store.traces(1) if t.error]
        assert store.runs()[-1].summary["failures"] == len(failed)
    assert failed
    assert all("no such word" in trace.error and trace.score == 0 for trace in failed)


def test_a_job_in_which_everything_fails_stops_at_once(url):
    def down(requests):
        raise EngineError("the engine is down")

    with pytest.raises(EngineError, match=r"every question of every graph failed.*is down"):
        fit(url, Counting(down))
    with swarm.Store.open(url) as store:
        assert store.runs()[0].status == "failed"
    fit(url)
    assert outcome(url)[0] == "done"


def test_settings_are_kept_with_the_run(url):
    fit(url, step=0.75)
    with swarm.Store.open(url) as store:
        settings = store.runs()[0].settings
    assert settings["step"] == 0.75
    assert settings["cognitive"] == 0.3
    assert list(settings["experts"]) == list(relay_job.LETTERS)


def test_bad_input_is_refused_before_anything_runs(url):
    with pytest.raises(ConfigError, match=r"`partcles`.*did you mean `particles`"):
        swarm.RoleStep(partcles=3)
    with pytest.raises(ConfigError, match="particles"):
        swarm.RoleStep(particles=1)
    engine = Counting()
    runtime = swarm.Runtime({"scripted": engine})
    task, pool = relay_job.task(), relay_job.pool()
    with pytest.raises(InputError, match="1 expert"):
        relay_job.job().fit(task, pool.subset("a"), runtime=runtime)
    with pytest.raises(TaskError, match="test"):
        relay_job.job().fit(task, pool, split="test", store=url, runtime=runtime)
    with pytest.raises(PoolError, match="did you mean `solver`"):
        relay_job.job(roles=["solvr"]).fit(task, pool, runtime=runtime)
    with pytest.raises(InputError, match="2 entries for 6 experts"):
        relay_job.job(roles=["solver", "critic"]).fit(task, pool, runtime=runtime)
    assert engine.asked == 0


def test_random_graphs_come_from_the_seed_alone():
    pool = relay_job.pool()
    assert random_graphs(pool, 5, seed=1) == random_graphs(pool, 5, seed=1)
    assert random_graphs(pool, 5, seed=1) != random_graphs(pool, 5, seed=2)
    assert len(np.unique([g.depth for g in random_graphs(pool, 50)])) > 1
