"""Pools and tasks that baselines are run on: experts that are scripts, and tiny adapters."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import swarm

AGENTS = Path(__file__).parents[2] / "agents"
sys.path.append(str(AGENTS))  # for `tiny`


def variety(example, text):
    """How many different words there are: something that any text scores on."""
    return min(len(set(text.split())), 8) / 8


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """A pool of three adapters on a model that talks nonsense, and a task on which they differ."""
    if any(find_spec(package) is None for package in ("torch", "transformers", "peft")):
        pytest.skip("needs torch, transformers and peft")
    import tiny
    import torch

    torch.set_num_threads(1)
    folder = tiny.make(tmp_path_factory.mktemp("zoo"))
    settings = {"prompt": "compact", "sampling": {"max_tokens": 8}}
    pool = swarm.Pool(
        swarm.Expert(name=n, model=str(folder / "base"), adapter=str(folder / n), **settings)
        for n in tiny.ADAPTERS
    )
    dev = [{"question": f"w{i} w{i + 1}", "answer": "w1"} for i in range(6)]
    return pool, swarm.Task.from_records("nonsense", variety, dev=dev)
