"""Sweeps: different settings from the paper's ranges, the same from the same seed."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
import relay_job
from hypothesis import given
from hypothesis import strategies as st

import swarm
from swarm.errors import InputError
from swarm.optimizers import pso
from swarm.optimizers.base import Optimizer
from swarm.optimizers.sweep import RANGES, draw, sweep, variants
from swarm.runtime.progress import Silent


def test_ranges_are_those_of_the_documentation():
    [fields] = [
        node
        for node in ast.parse(inspect.getsource(pso)).body
        if isinstance(node, ast.ClassDef) and node.name == "SwarmSettings"
    ]
    documented = {}
    for field, text in zip(fields.body, fields.body[1:], strict=False):
        said = re.search(r"searched in \{([^}]*)\}", ast.unparse(text))
        if said and isinstance(field, ast.AnnAssign):
            documented[field.target.id] = tuple(map(float, said[1].split(",")))
    assert documented == RANGES


@given(
    count=st.integers(1, 60),
    more=st.integers(0, 10),
    seed=st.integers(0, 2**32),
    fixed=st.sets(st.sampled_from(["step", "repel"])),
)
def test_draws_differ_lie_in_the_ranges_and_are_there_in_a_longer_sweep(count, more, seed, fixed):
    drawn = draw(count, seed=seed, fixed=fixed)
    assert len({tuple(each.values()) for each in drawn}) == count
    for each in drawn:
        assert each.keys() == RANGES.keys() - fixed
        assert all(value in RANGES[name] for name, value in each.items())
    assert draw(count + more, seed=seed, fixed=fixed)[:count] == drawn


def test_all_settings_of_the_job_but_those_drawn_are_kept():
    job = swarm.RoleStep(particles=4, seed=5, top_p=0.5, step=0.3)
    for drawn, variant in variants(job, 5, fixed=["step"]):
        assert variant.settings() == {**job.settings(), **drawn}
    assert variants(job, 5)[0][0] != variants(swarm.RoleStep(seed=6), 5)[0][0]


def test_jobs_best_first_and_done_but_once(tmp_path):
    job, task, pool = relay_job.job(iterations=2), relay_job.task(), relay_job.pool()
    url = f"sqlite:///{tmp_path / 'swarm.db'}"
    found = sweep(job, 4, task, pool, store=url, progress=Silent())
    assert [swept.score for swept in found] == sorted((s.score for s in found), reverse=True)
    for swept in found:
        assert swept.system.evaluate(task, "dev").score == swept.score
        assert swept.run.settings["step"] == swept.settings["step"]
    again = sweep(job, 4, task, pool, store=url, progress=Silent())
    assert [swept.run for swept in again] == [swept.run for swept in found]


def test_what_can_not_be_swept():
    class Guess(Optimizer):
        def fit(self, task, pool, **_):
            raise NotImplementedError

        def settings(self):
            return {}

    with pytest.raises(InputError, match="`Guess` can't be swept: it must have `inertia`"):
        variants(Guess(), 2)
    with pytest.raises(InputError, match="there can be 1 to 1350"):
        draw(1351, seed=0)
    assert draw(1, seed=0, fixed=RANGES) == [{}]
