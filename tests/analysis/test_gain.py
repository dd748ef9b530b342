"""Collaborative gain: the paper's sum, where it comes from, and what can't be computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from swarm.analysis import collaborative_gain
from swarm.errors import InputError

tables = st.tuples(st.integers(1, 5), st.integers(1, 30)).flatmap(
    lambda shape: arrays(np.float64, (shape[0] + 1, shape[1]), elements=st.sampled_from([0.0, 1.0]))
)


@given(tables)
def test_it_is_what_the_system_has_over_the_mean_expert(table) -> None:
    system, experts = table[0], table[1:]
    found = collaborative_gain(system, experts)
    assert found.gain == pytest.approx(system.mean() - experts.mean())
    assert -1 <= found.low <= found.gain + 1e-12
    assert found.gain - 1e-12 <= found.high <= 1


@given(tables)
def test_groups_are_all_questions_by_how_many_solve_them(table) -> None:
    system, experts = table[0], table[1:]
    found = collaborative_gain(system, experts)
    total = system.size
    assert sum(group.questions for group in found.groups) == total
    paper = sum(g.questions / total * (g.accuracy - g.solvers / len(experts)) for g in found.groups)
    assert found.gain == pytest.approx(paper)


def test_by_hand() -> None:
    system = np.array([1.0, 0.0, 1.0, 1.0])
    experts = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    found = collaborative_gain(system, experts)
    assert found.groups == ((0, 2, 1.0, 0.0), (1, 1, 0.0, 0.5), (2, 1, 1.0, 1.0))
    assert found.gain == pytest.approx((2 * 1.0 + 1 * -0.5 + 1 * 0.0) / 4)


def test_graded_scores_count_from_a_threshold() -> None:
    system, experts = np.array([0.8, 0.4]), np.array([[0.4, 0.4]])
    assert collaborative_gain(system, experts).gain == 0
    assert collaborative_gain(system, experts, solved=0.5).gain == 0.5


@pytest.mark.parametrize("experts", [np.empty((0, 2)), np.ones((3, 4)), np.ones(2)])
def test_shapes_that_do_not_fit(experts) -> None:
    with pytest.raises(InputError, match="shape"):
        collaborative_gain(np.ones(2), experts)
