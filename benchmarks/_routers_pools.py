"""Recorded pools as outcomes, and the routers that are measured on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swarm.agents.recording import Recording
from swarm.analysis.routing import outcomes_of, split
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers import find_router
from swarm.optimizers.routers.base import Embedded, Router

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "best_single": ("best_single", {}),
    "random": ("random", {}),
    "blend": ("blend", {}),
    "task_guessed": ("domains", {"tag": "benchmark"}),
    "domains": ("domains", {}),
    "knn": ("knn", {}),
    "knn_160": ("knn", {"neighbours": 160}),
    "carrot": ("carrot", {}),
    "router_dc": ("router_dc", {}),
    "matrix_factorization": ("matrix_factorization", {}),
    "bandit": ("bandit", {}),
    "expertise_tree": ("expertise_tree", {}),
    "select_llm": ("select_llm", {}),
}
"""Row of the table → router and settings; of `select_llm` the surest expert alone."""
SCALE = {"mt_bench": 10.0}

Found = tuple[dict[str, Any], list[dict[str, Any]]]
"""Of a pool: figures for the headline, and rows."""


def load(folder: Path, name: str, wanted: Any = None, **options: Any) -> Outcomes | None:
    """The files of a folder whose splits `wanted` takes; None where there are none."""
    files = sorted((folder / name).glob("*.jsonl*")) if (folder / name).is_dir() else []
    files = [file for file in files if wanted is None or wanted(file.name.split(".")[1])]
    if not files:
        return None
    # Files are read apart: ids need not differ between splits.
    parts = [Recording.load(file, models="intersection", scale=SCALE, **options) for file in files]
    models = [m for m in parts[0].models if all(m in part.models for part in parts)]
    return joined([outcomes_of(part.subset(models=models), choices=False) for part in parts])


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    answers: Any = None
    if all(part.answers is not None for part in parts):
        answers = tuple(row for part in parts for row in part.answers or ())
    return Outcomes(
        tuple(question for part in parts for question in part.questions),
        parts[0].experts,
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.costs for part in parts]),
        answers,
        tuple(meta for part in parts for meta in part.meta),
    )


def apart(train: Outcomes, test: Outcomes) -> Outcomes:
    """`train` without the questions of `test`."""
    asked = set(test.questions)
    return train.take([i for i, each in enumerate(train.questions) if each not in asked])


def both_of(train: Outcomes, test: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Of the models that both have, in one order."""
    shared = [name for name in train.experts if name in test.experts]
    return train.of_experts(shared), test.of_experts(shared)


def both(
    options: argparse.Namespace, name: str, wanted: Any = None
) -> tuple[Outcomes, Outcomes | None] | None:
    """A folder of --train, and the same of --test, if there is such an option, with the models that
    both have; None where one that is asked for lacks it."""
    train = load(options.train, name, wanted)
    if train is None or options.test is None:
        return None if train is None else (train, None)
    test = load(options.test, name, wanted)
    return None if test is None else both_of(train, test)


def pairs(
    options: argparse.Namespace, name: str, wanted: Any = None
) -> Iterator[tuple[int, Outcomes, Outcomes]]:
    """(seed, fitted on, judged by), for a folder whose benchmarks are pooled."""
    found = both(options, name, wanted)
    if found is None:
        return
    train, test = found
    for seed in range(options.seeds):
        if test is not None:
            yield seed, apart(train, test), test
        else:
            fitted, judged = split(train, np.random.default_rng(seed))
            yield seed, train.take(fitted), train.take(judged)


def grouped(options: argparse.Namespace, each: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What `interval` is given: (n,) values a seed. With --test all seeds judge the same questions,
    which are one group, of the means over seeds."""
    return [np.mean(each, axis=0)] if options.test else list(each)


def make(row: str, seed: int, encoder: Encoder) -> Router:
    name, settings = MADE[row]
    return with_encoder(find_router(name)(seed=seed, **settings), encoder)


def with_encoder(router: Any, encoder: Encoder) -> Any:
    if isinstance(router, Embedded):
        router.encoder = encoder
    return router


def tags_of(outcomes: Outcomes) -> np.ndarray:
    return np.array([str(tag) for tag in outcomes.tags("benchmark")])
