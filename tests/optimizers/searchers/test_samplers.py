"""What is special to each searcher that draws: random search, CMA-ES, REINFORCE."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import InputError
from swarm.graphs.decode import decode
from swarm.optimizers.pso import SwarmSettings
from swarm.optimizers.searchers.cmaes import CMAES
from swarm.optimizers.searchers.random import RandomSearch
from swarm.optimizers.searchers.reinforce import Reinforce

PATIENT = SwarmSettings(patience=1000)


def search(cls, f, seed=0, n=10, shape=(4, 4), iterations=40):
    rng = np.random.default_rng(seed)
    positions = rng.random((n, *shape)) * (1 - np.eye(4) if shape == (4, 4) else 1)
    searcher = cls(positions, rng, PATIENT, iterations=iterations)
    while not searcher.done:
        searcher.tell([f(x) for x in searcher.ask()])
    return searcher


@pytest.mark.parametrize("cls", [RandomSearch, CMAES, Reinforce])
def test_the_diagonal_of_a_matrix_is_not_searched(cls):
    asked = search(cls, lambda x: float(x.sum()), iterations=3).ask()
    assert (np.diagonal(asked, axis1=1, axis2=2) == 0).all()
    off = asked[:, ~np.eye(4, dtype=bool)]
    assert len(np.unique(off)) > 4


def test_random_search_does_not_care_about_scores():
    up, down = (search(RandomSearch, lambda x, s=s: s * float(x.sum())) for s in (1, -1))
    asked = up.ask()
    np.testing.assert_array_equal(asked, down.ask())
    assert asked.min() >= 0
    assert asked.max() < 1


def test_random_search_knows_what_cannot_be_a_new_best():
    searcher = search(RandomSearch, lambda x: 0.5, iterations=1)
    assert searcher.decided(0, 0.0, 0.5)
    assert not searcher.decided(0, 0.0, 0.6)


def test_cmaes_closes_in_on_the_maximum():
    def quadratic(x):
        return -float(((x - np.array([0.9, 0.1, 0.4])) ** 2).sum())

    found = search(CMAES, quadratic, shape=(3,), iterations=60)
    blind = search(RandomSearch, quadratic, shape=(3,), iterations=60)
    assert found.best_score > blind.best_score / 100  # scores are negative: ten times nearer
    spread = found.ask().std(axis=0)
    assert (spread < 0.05).all()


def test_cmaes_finds_what_lies_outside_of_where_it_began():
    found = search(CMAES, lambda x: -float(((x - 5) ** 2).sum()), shape=(3,), iterations=60)
    np.testing.assert_allclose(found.best, 5, atol=0.1)


def test_cmaes_survives_an_endless_slope():
    found = search(CMAES, lambda x: float(x.sum()), shape=(3,), iterations=300)
    assert found.best_score > 1e6
    assert np.isfinite(found.ask()).all()


@given(seed=st.integers(0, 1000), exponent=st.integers(-8, 8))
@settings(max_examples=10, deadline=None)
def test_cmaes_only_reads_the_order_of_scores(seed, exponent):
    def f(x):
        return float(x[0] - x[1] ** 2)

    plain, scaled = (
        search(CMAES, g, seed, shape=(3,), iterations=6)
        for g in (f, lambda x: f(x) * 2.0**exponent)
    )
    np.testing.assert_array_equal(plain.ask(), scaled.ask())


def test_cmaes_needs_two_entries_to_search():
    with pytest.raises(InputError, match="1 entries to search: CMA-ES needs at least 2"):
        CMAES(np.zeros((4, 1)), np.random.default_rng(0))


def wanted_edges(x):
    """How many of the edges of a chain 0 → 1 → 2 → 3 there are, less the others."""
    chain = np.eye(4, k=1)
    return float(((2 * chain - 1) * (x >= 0.5)).sum()) / 12


def test_reinforce_learns_which_edges_pay():
    chain = np.eye(4, k=1).astype(bool)
    probabilities = search(Reinforce, wanted_edges, iterations=60).probabilities
    assert probabilities[chain].min() > 0.9
    assert probabilities[~chain].max() < 0.1
    assert (np.diagonal(probabilities) == 0).all()


def test_reinforce_draws_edges_with_their_probabilities():
    searcher = search(Reinforce, wanted_edges, n=2000, iterations=2)
    edges = searcher.ask() >= 0.5
    assert np.abs(edges.mean(axis=0) - searcher.probabilities).max() < 0.05


def test_reinforce_puts_drawn_edges_before_others_and_likelier_before_less_likely():
    searcher = search(Reinforce, wanted_edges, n=50, iterations=3)
    for x in searcher.ask():
        for row, p in zip(x, searcher.probabilities, strict=True):
            order = np.lexsort((p, row >= 0.5))
            assert (np.diff(row[order]) >= 0).all()


def test_reinforce_finds_a_graph():
    chain = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))

    def decoded(x):
        return decode(x, ["a", "b", "c", "d", "e"], p=0, rng=np.random.default_rng(0))

    found = search(
        Reinforce, lambda x: len({*decoded(x).edges} & {*chain}) / 4, shape=(5, 5), iterations=60
    )
    assert found.best_score == 1
    assert decoded(found.best).edges == chain


def test_reinforce_learns_nothing_from_scores_that_are_all_the_same():
    probabilities = search(Reinforce, lambda x: 0.7, iterations=10).probabilities
    off = ~np.eye(4, dtype=bool)
    # The mean of ten sevenths is off by rounding, which Adam may not blow up.
    np.testing.assert_allclose(probabilities[off], 0.5)


def test_reinforce_learns_from_the_edges_that_were_scored():
    searcher = Reinforce(np.zeros((2, 3)), np.random.default_rng(0), PATIENT)
    searcher.tell([1.0, 0.0], at=np.array([[0.9, 0.1, 0.9], [0.1, 0.9, 0.9]]))
    first, second, third = searcher.probabilities
    assert first > 0.5 > second
    assert third == 0.5  # drawn by both: it can't have made the difference
