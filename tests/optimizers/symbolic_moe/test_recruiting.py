"""The paper's arithmetic (arXiv 2503.05641, section 3), by hand and by property."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from swarm.optimizers.draws import question_rng
from swarm.optimizers.recruiting import (
    profiles,
    recruit,
    strength,
    suitability,
    trim,
)

SCORES = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
SKILLS = [[0], [0, 1], [1]]


def test_profiles_count_right_less_wrong():
    assert profiles(SCORES, SKILLS, 3).tolist() == [[2, 0, 0], [0, 2, 0]]


def test_a_graded_score_counts_in_proportion():
    assert profiles(np.array([[0.75]]), [[0]], 1).tolist() == [[0.5]]


def test_strength_is_the_square_of_the_shifted_sum():
    profile = np.array([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    shifted = np.array([5.0, 1.0, 3.0])
    assert strength(profile) == pytest.approx(shifted**2 / (shifted**2).sum())
    assert strength(profile, temperature=1.0) == pytest.approx(shifted / shifted.sum())


def test_suitability_is_local_score_times_strength():
    profile = np.array([[2.0, 1.0], [1.0, 0.0], [-5.0, 1.0]])
    strengths = np.array([0.2, 0.3, 0.5])
    expected = np.array([3 * 0.2, 1 * 0.3, 0.0])
    assert suitability(profile, [0, 1], strengths) == pytest.approx(expected / expected.sum())


def test_if_nobody_is_any_good_the_least_bad_are_likelier():
    profile = np.array([[-1.0], [-3.0]])
    strengths = np.array([0.5, 0.5])
    assert suitability(profile, [0], strengths) == pytest.approx([0.75, 0.25])


def test_without_skills_all_are_alike():
    assert suitability(np.zeros((4, 2)), [], np.array([0.7, 0.1, 0.1, 0.1])).tolist() == [0.25] * 4


def test_draws_go_by_the_weights():
    weights = np.array([0.7, 0.3, 0.0])
    drawn = Counter(
        e
        for i in range(2000)
        for e in recruit(weights, 3, question_rng(0, str(i)), replacement=True)
    )
    assert drawn[2] == 0
    assert drawn[0] / 6000 == pytest.approx(0.7, abs=0.03)


@given(
    st.integers(1, 6).flatmap(lambda m: arrays(np.float64, (m, 3), elements=st.integers(-9, 9))),
    st.lists(st.integers(0, 2), max_size=3, unique=True),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_profile_gives_draws(profile, skills, k, replacement, seed):
    strengths = strength(profile)
    assert strengths.sum() == pytest.approx(1)
    assert (strengths > 0).all()
    weights = suitability(profile, skills, strengths)
    assert weights.sum() == pytest.approx(1)
    drawn = recruit(weights, k, question_rng(seed, "q"), replacement=replacement)
    assert drawn == recruit(weights, k, question_rng(seed, "q"), replacement=replacement)
    assert len(drawn) == (k if replacement else min(k, len(profile)))
    if replacement:
        assert all(weights[e] > 0 for e in drawn)
    else:
        assert len(set(drawn)) == len(drawn)


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.2, 0.5]),
    st.booleans(),
)
def test_trimming_leaves_the_frequent(recruited, share, replacement):
    if not replacement:
        recruited = [list(dict.fromkeys(each)) for each in recruited]
    rngs = [question_rng(0, str(i)) for i in range(len(recruited))]
    trimmed = trim(recruited, rngs, share=share, replacement=replacement)
    counts = Counter(e for each in recruited for e in each)
    frequent = {e for e, n in counts.items() if n >= share * counts.total()}
    if not frequent:
        assert trimmed == recruited
        return
    assert {e for each in trimmed for e in each} <= frequent
    for before, after in zip(recruited, trimmed, strict=True):
        # Those who are frequent stay, in their places; a place is only lost where nobody is free.
        assert [e for e in before if e in frequent] == [
            e for e, place in zip(after, before, strict=False) if place in frequent
        ] or len(after) < len(before)
        assert len(after) == len(before) or not replacement
        assert replacement or len(set(after)) == len(after)


def test_a_question_draws_the_same_in_any_company():
    weights = np.array([0.5, 0.3, 0.2])
    alone = recruit(weights, 3, question_rng(1, "why?"), replacement=True)
    assert alone == recruit(weights, 3, question_rng(1, "why?"), replacement=True)
    others = {
        tuple(recruit(weights, 3, question_rng(s, "why?"), replacement=True)) for s in range(20)
    }
    assert len(others) > 1
