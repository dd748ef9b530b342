"""`JobHistory`: what a job did, as its store has it."""

from __future__ import annotations

import numpy as np
import pytest
import relay_job
from made_up_job import EXPERTS, QUESTIONS, evaluation, record_job, right

import swarm
from swarm.analysis import JobHistory, by_place, jfk_by_iteration
from swarm.analysis.contribution import distance_to_end
from swarm.errors import InputError
from swarm.optimizers.hetero_swarm import HeterogeneousSwarm
from swarm.runtime.progress import Silent

from .conftest import JOINT, ROLE


@pytest.mark.parametrize("run", [JOINT, ROLE])
def test_a_job_that_was_run(jobs: str, run: int) -> None:
    job = JobHistory.load(jobs, run)
    assert (job.task, job.split, job.experts) == ("words", "dev", tuple(relay_job.LETTERS))
    assert job.questions == len(relay_job.WORDS)
    assert [iteration.number for iteration in job.iterations] == [1, 2, 3, 4]
    for iteration in job.iterations:
        if (role := iteration.role) is not None:
            assert role.scores.shape == role.whole.shape == (5,)
            assert role.positions.shape == (5, 6, 6)
            assert role.score == role.scores.max()
        if (weight := iteration.weight) is not None:
            assert weight.assignments.shape == (4, 6)
            assert weight.coefficients.shape == (6, 6)
        assert iteration.asked + sum(iteration.spared.values()) == iteration.calls
    assert any(iteration.weight for iteration in job.iterations) == (run == JOINT)
    whole = job.whole_scores()
    assert whole[job.best.graph] == pytest.approx(job.best.score) == max(whole.values())
    assert job.iterations[-1].best_score == job.best.score


@pytest.mark.parametrize("run", [JOINT, ROLE])
def test_changes_climb_to_the_best(jobs: str, run: int) -> None:
    job = JobHistory.load(jobs, run)
    changes = job.changes()
    assert changes[-1][:3] == (job.best.iteration, job.best.step, job.best.graph)
    scores = [change.score for change in changes]
    assert scores == sorted(set(scores))
    for change in changes:
        assert job.iterations[change.iteration - 1].best_score == pytest.approx(change.score)


def test_an_evaluation_in_parts_is_one(tmp_path) -> None:
    with swarm.Store.open(tmp_path / "swarm.db") as store:
        run = record_job(store, iterations=2)
        job = JobHistory.load(store, run)
        other = swarm.AgentGraph.from_json(job.best.graph.to_json())
        other = other.with_experts(["plus"] * len(EXPERTS))
        whole = evaluation(other, right(0.5))
        for rows in (range(10), range(10, QUESTIONS)):
            part = evaluation(other, whole.scores[rows.start : rows.stop], iteration=2, particle=0)
            object.__setattr__(part, "positions", rows)
            store.add_evaluation(run, part)
            assert (other in JobHistory.load(store, run).whole_scores()) == (rows.start > 0)
        job = JobHistory.load(store, run)
        assert job.whole_scores()[other] == 0.5
        assert len(job.evaluations_of(other)) == 2


@pytest.mark.parametrize(
    "settings", [{"reference": True}, {"racing": 0.8}, {"search": "random"}, {"search": "cmaes"}]
)
def test_other_ways_to_search(settings, tmp_path) -> None:
    url = str(tmp_path / "swarm.db")
    optimizer = HeterogeneousSwarm(
        particles=4, iterations=3, assignments=3, seed=1, dropout_role=0.3, **settings
    )
    optimizer.fit(relay_job.task(), relay_job.pool(), store=url, progress=Silent())
    job = JobHistory.load(url, 1)
    assert job.changes()[-1].graph == job.best.graph
    assert sum(view.size for view in job.evaluations_of(job.best.graph)) == job.questions


def test_tests_of_the_best_graph_are_found(tmp_path) -> None:
    url = str(tmp_path / "swarm.db")
    records = [{"question": word, "answer": word} for word in relay_job.WORDS]
    task = swarm.Task.from_records(
        "words", relay_job.progress_made, dev=records[:8], test=records[8:]
    )
    system = relay_job.job(iterations=3).fit(task, relay_job.pool(), store=url, progress=Silent())
    assert system.run is not None
    assert JobHistory.load(url, system.run).tested == []
    swarm.evaluate([swarm.random_graphs(relay_job.pool(), 1)[0]], task, relay_job.pool(), store=url)
    assert JobHistory.load(url, system.run).tested == []
    done = system.evaluate(task, store=url)
    [tested] = JobHistory.load(url, system.run).tested
    assert (tested.evaluation.run, tested.evaluation.split) == (done.run, "test")
    assert tested.low <= tested.evaluation.score == done.score <= tested.high

    # The same names with other weights behind them are not the same system.
    others = swarm.Pool([relay_job.expert(letter, delay=0.0001) for letter in relay_job.LETTERS])
    swarm.evaluate([system.graph], task, others, store=url)
    [again] = JobHistory.load(url, system.run).tested
    assert again.evaluation == tested.evaluation


def test_what_is_no_search(tmp_path) -> None:
    with swarm.Store.open(tmp_path / "swarm.db") as store:
        with pytest.raises(InputError, match="there is no run 1"):
            JobHistory.load(store, 1)
        store.start_run("evaluation", "x", {})
        with pytest.raises(InputError, match="run 1 is no job"):
            JobHistory.load(store, 1)
        store.start_run("job", "x", {"optimizer": "vote"})
        with pytest.raises(InputError, match=r"`vote`.* does not search by steps"):
            JobHistory.load(store, 2)


def test_jfk_is_unknown_until_an_expert_is_cast(tmp_path) -> None:
    with swarm.Store.open(tmp_path / "swarm.db") as store:
        job = JobHistory.load(store, record_job(store, casts=1, experts=tuple("abcdefgh")))
    scores = jfk_by_iteration(job)
    cast: set[int] = set()
    for row, iteration in zip(scores, job.iterations, strict=True):
        if iteration.weight is not None:
            cast |= set(iteration.weight.assignments.ravel().tolist())
        assert set(np.flatnonzero(~np.isnan(row))) == cast
    # An iteration without a weight-step keeps what was known.
    [dropped, *_] = [i for i, each in enumerate(job.iterations) if each.weight is None]
    assert np.array_equal(scores[dropped], scores[dropped - 1], equal_nan=True)


def test_places(jobs: str) -> None:
    job = JobHistory.load(jobs, ROLE)
    mean, graphs = by_place(job)
    whole = job.whole_scores()
    assert (graphs.sum(axis=1) == len(whole)).all(), "every expert stands in every graph"
    ended = [score for graph, score in whole.items() if graph.end.expert == "c"]
    assert graphs[2, 0] == len(ended)
    assert mean[2, 0] == pytest.approx(np.mean(ended)) if ended else np.isnan(mean[2, 0])


def test_distance_is_the_shortest_way() -> None:
    agents = tuple(swarm.Agent(name=name, expert=name) for name in "abc")
    graph = swarm.AgentGraph(agents=agents, edges=(("a", "b"), ("b", "c"), ("a", "c")))
    assert distance_to_end(graph) == {"a": 1, "b": 1, "c": 0}
