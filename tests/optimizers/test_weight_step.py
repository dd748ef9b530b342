"""The weight-step: JFK-scores, and experts that move in the span of where they began."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import InputError
from swarm.optimizers.pso import SwarmSettings
from swarm.optimizers.weight_step import draw_assignments, jfk_scores, weight_swarm


@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 12), n=st.integers(2, 8))
def test_jfk_is_the_mean_over_casts_by_how_often_one_stands_in_them(seed, m, n):
    rng = np.random.default_rng(seed)
    casts = draw_assignments(m, n, n, rng)
    scores, last = rng.random(m), rng.random(n)
    found = jfk_scores(casts, scores, last)
    for i in range(n):
        roles = [f for cast, f in zip(casts, scores, strict=True) for who in cast if who == i]
        assert found[i] == pytest.approx(np.mean(roles) if roles else last[i])


def test_jfk_by_hand():
    casts = np.array([[0, 0, 1], [1, 1, 1]])
    # expert 0 stands twice in the first cast; expert 1 once there and three times in the second
    np.testing.assert_allclose(
        jfk_scores(casts, [0.9, 0.1], [0.5, 0.5, 0.5]), [0.9, (0.9 + 3 * 0.1) / 4, 0.5]
    )


def test_casts_are_drawn_with_replacement_from_all_experts():
    casts = draw_assignments(400, 6, 4, np.random.default_rng(0))
    assert casts.shape == (400, 6)
    counts = np.bincount(casts.ravel(), minlength=4)
    assert len(counts) == 4
    assert counts.min() > 500  # of 600 expected
    assert any(len(set(cast)) < 4 for cast in casts.tolist())


@given(seed=st.integers(0, 2**32 - 1))
def test_experts_move_as_full_weights_would(seed):
    """The same update on coefficients and on weights gives the same weights (DESIGN.md)."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(5, 40))  # five experts' state dicts, flattened
    how = SwarmSettings(repel=0.1, patience=50)
    swarm = weight_swarm(5, np.random.default_rng(seed), how, iterations=20)

    from swarm.optimizers.pso import ParticleSwarm

    direct = ParticleSwarm(weights, np.random.default_rng(seed), how, iterations=20)
    for _ in range(20):
        merged = swarm.ask() @ weights
        np.testing.assert_allclose(merged, direct.ask(), rtol=1e-7, atol=1e-7)
        scores = -np.abs(merged).sum(axis=1)
        swarm.tell(scores)
        direct.tell(scores)


def test_it_begins_with_the_experts_themselves_and_its_state_is_small():
    swarm = weight_swarm(10, np.random.default_rng(0))
    np.testing.assert_array_equal(swarm.ask(), np.eye(10))
    swarm.tell(np.linspace(0, 1, 10))
    assert len(json.dumps(swarm.state())) < 100_000


def test_random_numbers_an_entry_are_refused():
    with pytest.raises(InputError, match="span of the experts"):
        weight_swarm(3, np.random.default_rng(0), SwarmSettings(randomness="entry"))
