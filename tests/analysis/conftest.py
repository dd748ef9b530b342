"""Jobs to look at: really run ones, with scripted experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import relay_job

import swarm
from swarm.optimizers.hetero_swarm import HeterogeneousSwarm
from swarm.runtime.progress import Silent

JOINT, ROLE = 1, 2
"""The ids of the two jobs."""


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store with a joint job and a role-step, not to be written to."""
    path: Path = tmp_path_factory.mktemp("jobs") / "swarm.db"
    url, settings = f"sqlite:///{path}", {"particles": 5, "iterations": 4, "seed": 3}
    for optimizer in (
        HeterogeneousSwarm(**settings, assignments=4, dropout_weights=0.3),
        swarm.RoleStep(**settings),
    ):
        optimizer.fit(relay_job.task(), relay_job.pool(), store=url, progress=Silent())
    return url
