"""`ParticleSwarm`: the swarm equation as published, and its state."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import InputError
from swarm.optimizers.pso import ParticleSwarm, SwarmSettings, neighbours


def sphere(x):
    return -float(((x - 0.3) ** 2).sum())


def swarm_of(rng, n=5, shape=(3, 3), iterations=20, **knobs):
    return ParticleSwarm(
        rng.random((n, *shape)), rng, SwarmSettings(**knobs), iterations=iterations
    )


class Published:
    """Heterogeneous Swarms' update, particle by particle, in the paper's symbols."""

    def __init__(self, x, seed, how):
        self.rng = np.random.default_rng(seed)
        self.how = how
        self.x = [row.copy() for row in x]
        n = len(x)
        other = self.rng.integers(0, n - 1, size=n)
        other = [o + (o >= i) for i, o in enumerate(other)]
        self.v = [x[o] - x[i] for i, o in enumerate(other)]
        self.p = [row.copy() for row in x]
        self.f_p = [-np.inf] * n
        self.g, self.f_g = None, -np.inf
        self.w, self.f_w = None, np.inf
        self.step = how.step

    def tell(self, scores):
        for i, f in enumerate(scores):
            if f > self.f_p[i]:
                self.p[i], self.f_p[i] = self.x[i].copy(), f
            if f > self.f_g:
                self.g, self.f_g = self.x[i].copy(), f
            if f < self.f_w:
                self.w, self.f_w = self.x[i].copy(), f
        r = self.rng.random((4, len(self.x), 1))
        how = self.how
        for i, x in enumerate(self.x):
            r_v, r_p, r_g, r_w = r[:, i, 0]
            c = r_v * how.inertia + r_p * how.cognitive + r_g * how.social + r_w * how.repel
            self.v[i] = (
                r_v * how.inertia * self.v[i]
                + r_p * how.cognitive * (self.p[i] - x)
                + r_g * how.social * (self.g - x)
                + r_w * how.repel * (x - self.w)
            ) / c
            self.x[i] = x + self.step * self.v[i]
        self.step = max(how.step_floor, how.step_decay * self.step)


@given(
    seed=st.integers(0, 2**32 - 1),
    inertia=st.sampled_from([0.1, 0.2, 0.3]),
    repel=st.sampled_from([0.01, 0.05, 0.1]),
    step=st.floats(0.5, 1.0),
)
@settings(max_examples=30, deadline=None)
def test_moves_as_published(seed, inertia, repel, step):
    # restart_patience so long that no particle is sent back: the paper's equation alone
    how = SwarmSettings(inertia=inertia, repel=repel, step=step, restart_patience=100)
    start = np.random.default_rng(0).random((6, 7))
    ours = ParticleSwarm(start, np.random.default_rng(seed), how, iterations=12)
    published = Published(start, seed, how)
    for _ in range(12):
        np.testing.assert_allclose(ours.ask(), published.x, rtol=1e-9, atol=1e-12)
        scores = [sphere(x) for x in ours.ask()]
        ours.tell(scores)
        published.tell(scores)
    assert ours.best_score == published.f_g
    assert ours.worst_score == published.f_w


@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.integers(0, 6),
    topology=st.sampled_from(["star", "ring", "von_neumann"]),
    start=st.sampled_from(["random", "zero", "best"]),
    randomness=st.sampled_from(["scalar", "entry", "none"]),
)
@settings(max_examples=40, deadline=None)
def test_state_survives_json_bit_for_bit(seed, before, topology, start, randomness):
    swarm = swarm_of(
        np.random.default_rng(seed),
        topology=topology,
        start_velocity=start,
        randomness=randomness,
        patience=3,
    )

    def go_on(swarm, k):
        asked = []
        for _ in range(k):
            asked.append(swarm.ask())
            swarm.tell([sphere(x) for x in asked[-1]])
        return np.array(asked), swarm.rng.random()

    go_on(swarm, before)
    state = json.loads(json.dumps(swarm.state()))
    again = ParticleSwarm.restore(state)
    assert again.done == swarm.done
    asked, drawn = go_on(swarm, 5)
    asked_again, drawn_again = go_on(again, 5)
    np.testing.assert_array_equal(asked, asked_again)
    assert drawn == drawn_again
    assert swarm.state() == again.state()


def test_finds_the_maximum():
    rng = np.random.default_rng(0)
    swarm = swarm_of(rng, n=20, shape=(2,), iterations=60, patience=60, randomness="entry")
    first = max(sphere(x) for x in swarm.ask())
    while not swarm.done:
        swarm.tell([sphere(x) for x in swarm.ask()])
    assert swarm.best_score > first / 10  # scores are negative: ten times nearer
    assert sphere(swarm.best) == swarm.best_score


@given(scores=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_bests_and_worst_are_of_all_scores_ever_told(scores):
    swarm = swarm_of(np.random.default_rng(1), n=4, shape=(2,), patience=100)
    positions = []
    for row in scores:
        positions.append(swarm.ask())
        swarm.tell(row)
    table = np.array(scores)
    assert swarm.best_score == table.max()
    assert swarm.worst_score == table.min()
    np.testing.assert_array_equal(swarm.best_scores, table.max(axis=0))
    holders = np.argwhere(table == table.max())
    assert any(np.array_equal(swarm.best, positions[i][k]) for i, k in holders)


def test_asking_changes_nothing_and_what_is_given_back_is_a_copy():
    rng = np.random.default_rng(0)
    start = rng.random((4, 2))
    kept = start.copy()
    swarm = ParticleSwarm(start, rng)
    swarm.ask()[:] = 7
    swarm.tell([0, 1, 2, 3])
    swarm.best[:] = 7
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_array_equal(swarm.best, kept[3])


def test_a_stray_particle_goes_back_to_its_best_and_rests():
    # patience 3 · restart_patience 0.67: older than two iterations
    swarm = swarm_of(np.random.default_rng(0), n=3, shape=(2,), patience=3, iterations=50)
    first = swarm.ask()
    swarm.tell([1.0, 0.5, 0.2])
    at_three = None
    for k in range(3):
        swarm.tell([0.0, 0.0, 0.0])
        at_three = swarm
        if k < 2:
            assert not np.array_equal(swarm.ask()[0], first[0])
    state = at_three.state()
    # Particle 0 is at g = p with no velocity: only the worst position still moves it.
    assert state["age"] == [0, 0, 0]
    moved = swarm.ask()[0] - first[0]
    away_from_worst = first[0] - np.frombuffer(
        __import__("base64").b64decode(state["arrays"]["worst"]["f8"]), dtype="<f8"
    )
    cosine = moved @ away_from_worst / np.linalg.norm(moved) / np.linalg.norm(away_from_worst)
    assert cosine == pytest.approx(1.0)


def test_stops_when_the_best_stays_the_same():
    swarm = swarm_of(np.random.default_rng(0), n=3, patience=4, iterations=50)
    told = 0
    while not swarm.done:
        swarm.tell([0.5, 0.5, 0.5])
        told += 1
    assert told == 1 + 4


def test_no_pull_at_all_keeps_everything_where_it_is():
    swarm = swarm_of(
        np.random.default_rng(0), inertia=0, cognitive=0, social=0, repel=0, patience=50
    )
    first = swarm.ask()
    swarm.tell([0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_array_equal(swarm.ask(), first)


@pytest.mark.parametrize(
    "scores", [[0.0, 1.0], [0.0, 1.0, float("nan")], [0.0, 1.0, float("inf")], [[0.0, 1.0, 2.0]]]
)
def test_refuses_scores_that_are_not_one_number_a_particle(scores):
    with pytest.raises(InputError, match="3 finite numbers"):
        swarm_of(np.random.default_rng(0), n=3).tell(scores)


def test_refuses_one_particle_and_positions_that_are_not_finite():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="at least 2 particles"):
        ParticleSwarm(np.zeros((1, 3)), rng)
    with pytest.raises(InputError, match="finite"):
        ParticleSwarm(np.array([[0.0], [np.nan]]), rng)


@given(n=st.integers(2, 40))
def test_neighbourhoods_are_mutual_and_hold_oneself(n):
    assert neighbours("star", n) is None
    for topology, most in (("ring", 3), ("von_neumann", 5)):
        rows = [set(row) for row in neighbours(topology, n).tolist()]
        for i, row in enumerate(rows):
            assert i in row
            assert len(row) <= most
            assert all(0 <= j < n and i in rows[j] for j in row)


def test_on_a_ring_news_travels_one_particle_an_iteration():
    rng = np.random.default_rng(0)
    swarm = ParticleSwarm(
        rng.random((8, 2)),
        rng,
        SwarmSettings(
            topology="ring", inertia=0, cognitive=0, repel=0, start_velocity="zero", patience=50
        ),
    )
    before = swarm.ask()
    swarm.tell([1.0, 0, 0, 0, 0, 0, 0, 0])
    moved = [not np.array_equal(a, b) for a, b in zip(before, swarm.ask(), strict=True)]
    # A particle follows the best of its neighbours: with equal scores that is itself.
    assert moved == [False, True, False, False, False, False, False, True]


def test_pyswarms_touches_neither_logging_nor_the_global_generator_nor_the_disk(tmp_path):
    code = """
import logging, os, random
import numpy as np
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
np.random.seed(1); before = np.random.get_state()[1].tolist(); python = random.getstate()
from swarm.optimizers.pso import ParticleSwarm, SwarmSettings
rng = np.random.default_rng(0)
for topology in ("star", "ring", "von_neumann"):
    swarm = ParticleSwarm(rng.random((6, 2)), rng, SwarmSettings(topology=topology))
    while not swarm.done:
        swarm.tell(swarm.ask().sum(axis=1))
assert os.listdir() == [], os.listdir()
assert logging.getLogger().handlers == [handler]
assert logging.getLogger().level == logging.WARNING
assert np.random.get_state()[1].tolist() == before
assert random.getstate() == python
assert "LOG_CFG" not in os.environ
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert logging.getLogger().level == logging.WARNING
