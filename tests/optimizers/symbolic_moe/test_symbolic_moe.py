"""Symbolic-MoE as a job: what it learns, from whichever source of skills, and what it asks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import colours_job
import pytest
from colours_job import TASK, fit

from swarm.errors import InputError, TaskError
from swarm.store import Store


def asked(log):
    """(key, expert, batch) of every request, as they were sent."""
    return [tuple(line.split()) for line in log.read_text().splitlines()]


def test_the_annotator_is_asked_five_times_a_question_and_what_it_says_is_learned(tmp_path):
    system = fit(str(tmp_path / "s.db"), tmp_path / "log")
    assert system.policy.skills == ("blue", "colours", "green", "red")
    counts = Counter(name for _, name, _ in asked(tmp_path / "log"))
    # Once alone, five times as annotator; the first of those draws is another prompt.
    assert counts["namer"] >= 24 * 6
    found = system.evaluate(TASK, "test")
    assert found.score == 1
    for graph, example in zip(found.graphs, TASK.test, strict=True):
        assert example.meta["tag"] in {agent.expert for agent in graph.agents}


@pytest.mark.parametrize(
    "source",
    [{"tag": "tag", "annotator": None}, {"annotator": None}, {"final": "vote"}],
    ids=["tag", "words", "vote"],
)
def test_other_sources_of_skills_and_a_vote(source):
    system = fit(**source, k=1)
    assert system.evaluate(TASK, "test").score > 1 / 3


def test_bad_settings_are_refused_before_anything_is_asked(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(TaskError, match="no example of `dev` has the tag `colour`"):
        fit(log=log, annotator=None, tag="colour")
    with pytest.raises(InputError, match="exclude each other"):
        fit(log=log, tag="tag")
    with pytest.raises(InputError, match="nobody"):
        fit(log=log, annotator="nobody")
    assert not log.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    found = fit(str(folder / "s.db"), folder / "log")
    with Store.open(folder / "s.db") as store:
        keys = [key for key, *_ in asked(folder / "log")]
        assert len(keys) == len(set(keys))
        return found.policy.fingerprint, set(keys), store.run(1).summary


@pytest.mark.parametrize("stop", [1, 3, 5, 7, 9])
def test_killed_at_any_point_it_ends_the_same_and_asks_nothing_twice(tmp_path, whole, stop):
    store, log = str(tmp_path / "s.db"), tmp_path / "log"
    program = "import sys, colours_job; colours_job.fit(*sys.argv[1:3], int(sys.argv[3]))"
    killed = subprocess.run(
        [sys.executable, "-c", program, store, str(log), str(stop)],
        cwd=Path(colours_job.__file__).parent,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    before = asked(log)
    with Store.open(store) as opened:  # what came in the last 50 ms may not be in it, nor used
        kept = set(opened.known([bytes.fromhex(key) for key, *_ in before]))
    assert len(kept) >= len(before) / 3
    system = fit(store, log)
    fingerprint, once, summary = whole
    assert system.policy.fingerprint == fingerprint
    after = [bytes.fromhex(key) for key, *_ in asked(log)[len(before) :]]
    assert len(after) == len(set(after))
    assert not kept & set(after)
    assert {key.hex() for key in kept.union(after)} == once
    with Store.open(store) as opened:
        again = opened.run(1).summary
    same = ("score", "best_single", "asked", "determinism")
    assert {k: again[k] for k in same} == {k: summary[k] for k in same}
