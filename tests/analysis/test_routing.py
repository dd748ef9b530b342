"""Tables of routers: fair splits, honest intervals, and what accuracy costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.recording import Recording
from swarm.analysis.routing import (
    Point,
    Routed,
    aiq,
    cost_range,
    front,
    hull,
    interval,
    outcomes_of,
    split,
)
from swarm.errors import InputError
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.best_single import BestSingle
from swarm.optimizers.routers.oracle import Oracle
from swarm.optimizers.routers.random import Random

POINTS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=12)


def priced(n=60, seed=0):
    rng = np.random.default_rng(seed)
    scores = (rng.random((n, 3)) < [0.5, 0.6, 0.9]).astype(float)
    costs = np.tile([0.001, 0.002, 0.01], (n, 1))
    meta = [{"benchmark": "ab"[i % 2]} for i in range(n)]
    return Outcomes(tuple(f"q{i}" for i in range(n)), ("s", "m", "l"), scores, costs, None, meta)


@given(POINTS)
def test_a_hull_is_above_all_points_and_bends_down(points):
    corners = hull(points)
    assert {tuple(corner) for corner in corners} <= set(points)
    assert (np.diff(corners, axis=0) > 0).all()
    heights = np.interp([cost for cost, _ in points], *corners.T)
    assert (heights >= np.array([score for _, score in points]) - 1e-9)[
        [cost >= corners[0, 0] for cost, _ in points]
    ].all()


def test_aiq_is_the_mean_height_of_the_hull():
    assert aiq([(1, 0.5), (3, 0.9)], 1, 3) == pytest.approx(0.7)
    assert aiq([(1, 0.5), (3, 0.9)], 1, 5) == pytest.approx(0.8)  # level beyond the dearest
    assert aiq([(1, 0.5), (2, 0.1), (3, 0.9)], 1, 3) == pytest.approx(0.7)
    assert aiq([(2, 0.8)], 0, 2) == pytest.approx(0.4)  # nothing, before anything is spent
    assert aiq([(2, 0.8)], 2, 2) == 0.8


def test_a_trade_off_goes_from_score_to_cost():
    outcomes = priced()
    best = front(BestSingle().fit(outcomes), outcomes)
    assert best[0].score == outcomes.scores[:, 2].mean()
    assert best[-1].cost == pytest.approx(1.0)
    low, high = cost_range(outcomes)
    assert (low, high) == (pytest.approx(1.0), pytest.approx(10.0))
    known = aiq(front(Oracle().fit(outcomes), outcomes), low, high)
    assert known > aiq(best, low, high)
    assert len(front(Random().fit(outcomes), outcomes)) == 1


def test_both_sides_have_their_share_of_each_benchmark():
    outcomes = priced(100)
    again = Outcomes(
        (*outcomes.questions[:50], *outcomes.questions[:50]),
        outcomes.experts,
        outcomes.scores,
        outcomes.costs,
        None,
        outcomes.meta,
    )
    for table in (outcomes, again):
        fitted, judged = split(table, np.random.default_rng(3))
        assert sorted([*fitted, *judged]) == list(range(100))
        assert not {table.questions[i] for i in fitted} & {table.questions[i] for i in judged}
    fitted, _ = split(outcomes, np.random.default_rng(3))
    assert [outcomes.meta[i]["benchmark"] for i in fitted].count("a") == 35


def test_an_interval_holds_the_mean_and_narrows_with_more_questions():
    rng = np.random.default_rng(0)
    few, many = (rng.random(n) for n in (20, 2000))
    narrow, wide = (interval([x], np.random.default_rng(1)) for x in (many, few))
    assert wide.low < wide.mean < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5
    both = interval([few, many], np.random.default_rng(1))
    assert both.mean == pytest.approx((few.mean() + many.mean()) / 2)


def test_a_recording_as_outcomes(tmp_path):
    rows = [
        {
            "id": str(i),
            "benchmark": "b",
            "question": f"q{i}",
            "gold": "A",
            "choices": {"A": "yes", "B": "no"},
            "scores": {"x": 1.0, "y": 0.0},
            "soft_scores": {"x": 0.7, "y": 0.0},
            "answers": {"x": "A", "y": None},
            "sample_answers": {"x": ["A", "A"]},
            **({"costs": {"x": 0.5, "y": 0.25}} if i == 0 else {}),
        }
        for i in range(3)
    ]
    file = tmp_path / "b.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcomes = outcomes_of(Recording.load(file))
    assert (outcomes.costs == [[0.5, 0.25]] * 3).all()  # what is not recorded is as the others
    assert outcomes.meta[0]["soft_scores"] == {"x": 0.7, "y": 0.0}
    assert list(outcomes.meta[0]["sample_answers"]["x"]) == ["A", "A"]
    assert outcomes.tags("gold") == ["A"] * 3
    assert outcomes.answers[0] == ("A", None)
    assert "yes" in outcomes.questions[0]
    assert outcomes_of(Recording.load(file), choices=False).questions[0] == "q0"
    bare = [{key: row[key] for key in ("id", "benchmark", "question", "scores")} for row in rows]
    del bare[0]["scores"]["y"]
    file.write_text("".join(json.dumps(row) + "\n" for row in bare))
    with pytest.raises(InputError, match="not every model was asked every question"):
        outcomes_of(Recording.load(file, models="union"))


def test_what_choices_came_to():
    outcomes = priced()
    routed = Routed.of(np.zeros(60, dtype=np.intp), outcomes)
    assert routed.accuracy == outcomes.means[0]
    assert routed.cost == pytest.approx(1.0)
    assert Point(1.0, 0.5).trade_off == 0
