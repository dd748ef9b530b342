"""Jobs beside each other: by the number of their experts, and by how many of them differ."""

from __future__ import annotations

import pytest
from made_up_job import EXPERTS, evaluation, record_job, right

import swarm
from swarm.analysis import JobHistory, by_diversity, by_number, outcome
from swarm.analysis.pools import measured_on


@pytest.fixture
def store(tmp_path):
    with swarm.Store.open(tmp_path / "swarm.db") as store:
        yield store


def outcomes(store, runs):
    return [outcome(JobHistory.load(store, run)) for run in runs]


def test_by_number_of_experts(store) -> None:
    runs = [
        record_job(store, experts=EXPERTS[:n], seed=seed, iterations=2)
        for n, seed in ((2, 0), (4, 0), (4, 1))
    ]
    found = outcomes(store, runs)
    two, four = by_number(found)
    assert (two.value, two.jobs, two.mean) == (2, 1, found[0].dev)
    assert (four.value, four.jobs) == (4, 2)
    assert four.low == min(one.dev for one in found[1:]) <= four.mean <= four.high
    assert measured_on(found) == "dev"


def test_by_diversity(store) -> None:
    run = record_job(store, iterations=2)
    job = JobHistory.load(store, run)
    copies = job.run.settings["experts"]
    for name in EXPERTS[1:3]:
        copies[name]["fingerprint"] = copies["plus"]["fingerprint"]
    assert outcome(job).distinct == 4
    assert [row.value for row in by_diversity([outcome(job)])] == [4]


def test_test_scores_count_where_all_have_one(store) -> None:
    runs = [record_job(store, iterations=2, seed=seed, task=f"task {seed}") for seed in (0, 1)]

    def evaluate(run: int, share: float) -> None:
        job = JobHistory.load(store, run)
        number = store.start_run("evaluation", "test", {"task": job.task})
        store.add_evaluation(number, evaluation(job.best.graph, right(share), "test"))

    evaluate(runs[0], 0.25)
    assert measured_on(outcomes(store, runs)) == "dev"
    evaluate(runs[1], 0.75)
    found = outcomes(store, runs)
    assert measured_on(found) == "test"
    [row] = by_number(found)
    assert (row.low, row.mean, row.high) == (0.25, 0.5, 0.75)
