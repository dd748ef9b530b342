"""The joint job: what is spared changes nothing, it repeats itself, and survives interruption."""

from __future__ import annotations

import random

import numpy as np
import pytest
import relay_job
from relay_job import Counting

import swarm
from swarm.errors import ConfigError, PoolError
from swarm.optimizers.hetero_swarm import HeterogeneousSwarm
from swarm.replay import replay
from swarm.runtime.progress import Silent

SETTINGS = {"particles": 4, "assignments": 3, "iterations": 4, "patience": 4, "seed": 1}


def fit(store=None, engine=None, task=None, **settings):
    runtime = swarm.Runtime({"scripted": engine or Counting()})
    job = HeterogeneousSwarm(**{**SETTINGS, **settings})
    return job.fit(
        task or relay_job.task(), relay_job.pool(), store=store, runtime=runtime, progress=Silent()
    )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'swarm.db'}"


def outcome(url):
    """All of a job that must not depend on how it was interrupted."""
    with swarm.Store.open(url) as store:
        [run] = [run for run in store.runs() if run.kind == "job"]
        state = store.state(run.id)
        for entry in state["history"]:
            del entry["spared"]["known"], entry["spared"]["shared"]
        asked = sum(view.batch.requests for view in store.batches(run.id))
        sizes = [(view.graph.digest, view.score, view.size) for view in store.evaluations(run.id)]
        return run.status, state, sorted(sizes), asked


def trajectory(url):
    """All of a job that must not depend on what is spared: positions, bests, scores that count."""
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        state = store.state(run.id)
    steps = []
    for entry in state["history"]:
        role, weight = entry["role"], entry["weight"]
        if role is not None:
            role = {"positions": role["positions"]}
        steps.append((role, weight, entry["best_score"], entry["calls"]))
    return state["search"], state["weights"], state["jfk"], state["best"], steps


def random_task(rng):
    """Words over the pool's letters; a question's score is a share, or all or nothing."""
    words = {
        "".join(relay_job.LETTERS[a : a + rng.randint(1, 5)])
        for a in (rng.randrange(6) for _ in range(rng.randint(5, 25)))
    }

    def solved(example, text):
        return float(text == example.question)

    metric = rng.choice([relay_job.progress_made, solved])
    dev = [{"question": word, "answer": word} for word in sorted(words)]
    return swarm.Task.from_records("words", metric, dev=dev)


def random_settings(rng):
    return {
        "particles": rng.randint(2, 6),
        "assignments": rng.randint(1, 4),
        "iterations": rng.randint(1, 5),
        "patience": rng.randint(1, 5),
        "seed": rng.randrange(1000),
        "top_p": rng.choice([0.0, 0.4]),
        "explore": rng.choice([0.0, 0.3]),
        "l1": rng.choice([0.0, 0.1]),
        "keep": rng.choice([0.0, 0.6]),
        "role_experts": rng.choice(["found", "current"]),
        "best_graph": rng.choice(["found", "iteration"]),
        "dropout_role": rng.choice([0.0, 0.4]),
        "dropout_weights": rng.choice([0.0, 0.4]),
        "start_velocity": rng.choice(["random", "zero", "best"]),
        "topology": rng.choice(["star", "ring", "von_neumann"]),
    }


@pytest.mark.parametrize("seed", range(50))
def test_what_is_spared_changes_nothing(tmp_path, seed):
    """Against the reference, which spares nothing, and bit for bit."""
    rng = random.Random(seed)
    settings, state = random_settings(rng), rng.getstate()
    found = {}
    for name, how in {"whole": {"reference": True}, "spared": {}}.items():
        rng.setstate(state)
        url, engine = f"sqlite:///{tmp_path / name}.db", Counting()
        best = fit(url, engine, random_task(rng), **settings, **how)
        found[name] = (trajectory(url), best.graph, engine.asked)
    assert found["spared"][:2] == found["whole"][:2]
    calls = found["whole"][0][-1][-1][-1]
    assert found["whole"][2] == calls, "the reference asks for every call"
    assert found["spared"][2] < calls


def test_the_best_of_both_steps_is_kept(url):
    best = fit(url, particles=6, assignments=6, iterations=8, patience=8, reference=True)
    state = outcome(url)[1]
    steps = [entry[step] for entry in state["history"] for step in ("role", "weight")]
    assert state["best"]["score"] == max(score for step in steps for score in step["scores"])
    assert best.evaluate(relay_job.task(), "dev").score == state["best"]["score"]
    assert state["history"][0]["weight"]["coefficients"] == np.eye(6).tolist()
    assert state["history"][1]["weight"]["coefficients"] != np.eye(6).tolist()


def test_without_a_store_it_finds_the_same(url):
    assert fit().graph == fit(url).graph


def test_the_same_call_again_asks_nothing(url):
    engine = Counting()
    first = fit(url, engine)
    asked = engine.asked
    again = fit(url, engine)
    assert (again.graph, again.run, engine.asked) == (first.graph, first.run, asked)
    assert again.pool.fingerprint == first.pool.fingerprint


@pytest.mark.parametrize("when", [0, 2, 5, 9, 14, 20, 27])
def test_an_interrupted_job_goes_on_where_it_was(url, tmp_path, when):
    calls = iter(range(10**6))

    def interrupt(requests):
        if next(calls) == when:
            raise KeyboardInterrupt

    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(url, Counting(interrupt))
    fit(url)
    assert outcome(url) == outcome(whole)


def test_nothing_is_loaded_anew_between_iterations(url):
    class Loading(Counting):
        def size(self, base, experts):
            return 1  # as if scripts were models

    runtime = swarm.Runtime({"scripted": Loading()}, memory=1000)  # every script is a base
    task, pool = relay_job.task(), relay_job.pool()
    HeterogeneousSwarm(**SETTINGS).fit(task, pool, store=url, runtime=runtime, progress=Silent())
    with swarm.Store.open(url) as store:
        loaded = [view.batch.base for view in store.batches(1) if view.batch.loaded]
    assert len(loaded) == len(set(loaded)) > 6


def test_a_job_with_moved_weights_can_be_replayed(url):
    fit(url)
    report = replay(url, 1, task=relay_job.task())
    assert report.scores == report.traces


def test_racing_asks_less_and_says_so_only_if_asked(url, tmp_path):
    dev = [{"question": w, "answer": w} for w in relay_job.WORDS for _ in range(10)]
    dev = [{**each, "id": str(i)} for i, each in enumerate(dev)]
    task = swarm.Task.from_records("many", relay_job.progress_made, dev=dev)
    other = f"sqlite:///{tmp_path / 'raced.db'}"
    fit(url, task=task)
    fit(other, task=task, racing=0.9)
    spared = [outcome(each)[1]["history"][-1]["spared"]["bounds"] for each in (url, other)]
    assert spared[1] > spared[0]


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match=r"`HeterogeneousSwarm`: key `assignment`.*`assignments`"):
        HeterogeneousSwarm(assignment=3)
    with pytest.raises(ConfigError, match="span"):
        HeterogeneousSwarm(randomness="entry")
    with pytest.raises(ConfigError, match="did you mean `random`"):
        HeterogeneousSwarm(search="randm")


def test_a_pool_that_cannot_be_mixed_is_refused(url, tmp_path):
    script = next(iter(relay_job.pool().values()))
    hosted = swarm.Expert(name="x", model="org/model")
    with pytest.raises(PoolError, match="can be mixed"):
        HeterogeneousSwarm().fit(relay_job.task(), swarm.Pool([script, hosted]), store=url)
    assert not (tmp_path / "swarm.db").exists()


def test_reference_turns_off_what_is_beyond_the_paper():
    how = HeterogeneousSwarm(reference=True).settings()
    assert [how[k] for k in ("explore", "keep", "memoise", "bounds")] == [
        0,
        False,
        False,
        False,
    ]
    assert HeterogeneousSwarm(reference=True, explore=0.1).settings()["explore"] == 0.1
