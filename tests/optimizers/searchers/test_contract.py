"""What `Searcher` promises, of every member of `SEARCHERS`."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import InputError
from swarm.optimizers.pso import SwarmSettings
from swarm.optimizers.searchers import SEARCHERS, find_searcher

pytestmark = pytest.mark.parametrize("name", SEARCHERS)
SEEDS = st.integers(0, 2**32 - 1)
TARGET = np.random.default_rng(7).random((4, 4))


def start(n, shape, rng):
    """N positions as a role-step begins with."""
    positions = rng.random((n, *shape))
    return positions * (1 - np.eye(4)) if shape == (4, 4) else positions


def searcher_of(name, seed=0, n=6, shape=(4, 4), iterations=20, patience=100):
    rng = np.random.default_rng(seed)
    how = SwarmSettings(patience=patience)
    return find_searcher(name)(start(n, shape, rng), rng, how, iterations=iterations)


def linear(x):
    return float((x * (TARGET - 0.5)).sum())


def go_on(searcher, iterations, f=linear, moved=0.0):
    """What was asked, iteration by iteration; scored where it was moved to."""
    asked = []
    noise = np.random.default_rng(1)
    for _ in range(iterations):
        asked.append(searcher.ask())
        at = asked[-1] + moved * noise.standard_normal(asked[-1].shape)
        searcher.tell([f(x) for x in at], at=at if moved else None)
    return np.array(asked)


def through_json(searcher):
    return type(searcher).restore(json.loads(json.dumps(searcher.state(), allow_nan=False)))


@pytest.mark.parametrize("shape", [(4, 4), (5,), (2, 3)])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_asks_for_the_given_positions_first_and_for_as_many_of_that_shape_ever_after(
    name, n, shape
):
    given = start(n, shape, np.random.default_rng(3))
    kept = given.copy()
    searcher = find_searcher(name)(given, np.random.default_rng(0), SwarmSettings(patience=100))
    np.testing.assert_array_equal(searcher.ask(), kept)
    for _ in range(5):
        asked = searcher.ask()
        assert asked.shape == (n, *shape)
        assert np.isfinite(asked).all()
        np.testing.assert_array_equal(asked, searcher.ask())
        searcher.tell(asked.reshape(n, -1).sum(axis=1))
    np.testing.assert_array_equal(given, kept)


def test_what_is_given_back_is_a_copy(name):
    searcher = searcher_of(name)
    kept = searcher.ask()
    searcher.ask()[:] = 7
    np.testing.assert_array_equal(searcher.ask(), kept)
    searcher.tell(range(6))
    searcher.best[:] = 7
    np.testing.assert_array_equal(searcher.best, kept[5])


def test_telling_leaves_its_arguments_alone(name):
    searcher = searcher_of(name)
    scores, at = np.arange(6.0), searcher.ask() + 0.1
    before = scores.copy(), at.copy()
    searcher.tell(scores, at=at)
    go_on(searcher, 2)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(at, before[1])


@given(seed=SEEDS, before=st.integers(0, 5), moved=st.sampled_from([0.0, 0.3]))
@settings(max_examples=20, deadline=None)
def test_goes_on_bit_for_bit_from_its_state(name, seed, before, moved):
    searcher = searcher_of(name, seed)
    go_on(searcher, before, moved=moved)
    again = through_json(searcher)
    assert (again.iteration, again.iterations) == (before, 20)
    assert (again.best_score, again.done) == (searcher.best_score, searcher.done)
    np.testing.assert_array_equal(again.best, searcher.best)
    asked, asked_again = (go_on(s, 5, moved=moved) for s in (searcher, again))
    np.testing.assert_array_equal(asked, asked_again)
    assert searcher.rng.random() == again.rng.random()
    assert searcher.state() == again.state()


def test_a_state_is_not_changed_by_going_on(name):
    searcher = searcher_of(name)
    go_on(searcher, 2)
    state = searcher.state()
    kept = json.dumps(state)
    go_on(type(searcher).restore(state), 3)
    go_on(searcher, 3)
    assert json.dumps(state) == kept


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_seed_decides(name, seed):
    one, same, other = searcher_of(name, seed), searcher_of(name, seed), searcher_of(name, seed + 1)
    asked = go_on(one, 4)
    np.testing.assert_array_equal(asked, go_on(same, 4))
    assert one.state() == same.state()
    assert not np.array_equal(asked, go_on(other, 4))


def test_draws_from_its_generator_and_no_other(name):
    searcher = searcher_of(name)
    np.random.seed(1)  # noqa: NPY002
    numpy_before, python_before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    go_on(searcher, 3)
    assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002
    assert random.getstate() == python_before
    # What the caller draws in between counts.
    one, two = searcher_of(name), searcher_of(name)
    two.rng.random()
    assert not np.array_equal(go_on(one, 3), go_on(two, 3))


@given(data=st.data(), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_decided_score_may_be_any_number_within_its_bounds(name, data, seed):
    # Few different scores, so that ties come up; patience short enough to matter.
    one, two = (searcher_of(name, seed, n=4, patience=3) for _ in range(2))
    grid = st.integers(0, 8).map(lambda k: k / 8)
    for _ in range(6):
        scores = data.draw(st.lists(grid, min_size=4, max_size=4))
        others = list(scores)
        for i in range(4):
            low, high = sorted(data.draw(st.tuples(grid, grid)))
            if one.decided(i, low, high):
                scores[i], others[i] = data.draw(st.tuples(*[st.floats(low, high)] * 2))
        assert [one.decided(i, 0.2, 0.4) for i in range(4)] == [
            two.decided(i, 0.2, 0.4) for i in range(4)
        ]
        one.tell(scores)
        two.tell(others)
        np.testing.assert_array_equal(one.ask(), two.ask())
        np.testing.assert_array_equal(one.best, two.best)
        assert (one.best_score, one.done) == (two.best_score, two.done)
    assert one.state() == two.state()


def test_nothing_is_decided_before_a_score_was_told(name):
    assert not any(searcher_of(name).decided(i, 0.0, 0.0) for i in range(6))


@given(scores=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_best_is_the_best_of_all_that_was_scored(name, scores):
    searcher = searcher_of(name, n=4)
    assert searcher.best_score == -np.inf
    scored = []
    for k, row in enumerate(scores):
        scored.append(searcher.ask() + k % 2 / 10)
        searcher.tell(row, at=scored[-1])
    table = np.array(scores)
    assert searcher.best_score == table.max()
    assert any(
        np.array_equal(searcher.best, scored[i][k]) for i, k in np.argwhere(table == table.max())
    )


@pytest.mark.parametrize(
    "scores",
    [
        [0.0] * 5,
        [0.0] * 7,
        [0.0] * 5 + [float("nan")],
        [0.0] * 5 + [float("inf")],
        [[0.0] * 6],
    ],
)
def test_refuses_scores_that_are_not_one_number_a_position(name, scores):
    searcher = searcher_of(name)
    with pytest.raises(InputError, match="6 finite numbers"):
        searcher.tell(scores)
    assert searcher.iteration == 0


@pytest.mark.parametrize(
    "positions", [np.zeros((1, 3)), np.zeros(3), np.array([[0.0, 1.0], [np.nan, 1.0]])]
)
def test_refuses_too_few_positions_and_what_is_not_finite(name, positions):
    with pytest.raises(InputError, match=r"at least 2|finite"):
        find_searcher(name)(positions, np.random.default_rng(0))


def test_is_done_after_its_iterations(name):
    searcher = searcher_of(name, iterations=4)
    told = 0
    while not searcher.done:
        assert searcher.iteration == told
        go_on(searcher, 1)
        told += 1
    assert told == searcher.iterations == 4


def test_is_done_when_the_best_stays_the_same(name):
    searcher = searcher_of(name, patience=3)
    while not searcher.done:
        searcher.tell([0.5] * 6)
    assert searcher.iteration == 1 + 3
    assert through_json(searcher).done


@pytest.mark.parametrize("moved", [0.0, 0.1])
def test_improves_on_where_it_began(name, moved):
    def quadratic(x):
        return -float(((x - 0.8 * (1 - np.eye(4))) ** 2).sum())

    for seed in range(5):
        for f in (linear, quadratic):
            searcher = searcher_of(name, seed, n=10, iterations=40)
            first = max(f(x) for x in searcher.ask())
            go_on(searcher, 40, f, moved)
            assert searcher.best_score > first
            assert f(searcher.best) == searcher.best_score


def test_flat_scores_lead_nowhere_but_break_nothing(name):
    searcher = searcher_of(name, iterations=60)
    asked = go_on(searcher, 60, lambda x: 0.5)
    assert np.isfinite(asked).all()
    assert searcher.best_score == 0.5
