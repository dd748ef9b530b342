"""Many jobs that differ in the swarm's hyperparameters, drawn from the ranges of the paper."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from swarm.agents.expert import Pool
from swarm.errors import InputError
from swarm.optimizers.base import Optimizer
from swarm.optimizers.budget import Budget
from swarm.runtime.progress import Progress
from swarm.runtime.runtime import Runtime
from swarm.runtime.system import System
from swarm.store import RunView, Store
from swarm.tasks import Task

RANGES: dict[str, tuple[float, ...]] = {
    "inertia": (0.1, 0.2, 0.3),
    "cognitive": (0.1, 0.2, 0.3, 0.4, 0.5),
    "social": (0.2, 0.3, 0.4, 0.5, 0.6),
    "repel": (0.01, 0.05, 0.1),
    "step": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
}
"""What Heterogeneous Swarms (arXiv 2502.04510, appendix on experiments) draws a run's settings
from; it keeps the run that is best on dev."""


@dataclass(frozen=True)
class Swept:
    """One job of a sweep."""

    settings: Mapping[str, float]
    """Those that were drawn."""
    system: System
    run: RunView

    @property
    def score(self) -> float:
        """On the questions that were searched on."""
        return float((self.run.summary or {})["score"])


def draw(count: int, *, seed: int, fixed: Collection[str] = ()) -> list[dict[str, float]]:
    """`count` different choices of hyperparameters; those in `fixed` are left out.

    The first ones are the same however many there are: a sweep can be made longer.

    Raises:
        InputError: there are not so many.
    """
    ranges = {name: values for name, values in RANGES.items() if name not in fixed}
    sizes = [len(values) for values in ranges.values()]
    if not 1 <= count <= math.prod(sizes):
        raise InputError(f"a sweep of {count} jobs: there can be 1 to {math.prod(sizes)}")
    chosen = np.random.default_rng(seed).permutation(math.prod(sizes))[:count]
    return [
        {
            name: values[int(place)]
            for (name, values), place in zip(
                ranges.items(), np.unravel_index(number, sizes) if sizes else (), strict=True
            )
        }
        for number in chosen
    ]


def variants(
    optimizer: Optimizer, count: int, *, fixed: Collection[str] = ()
) -> list[tuple[dict[str, float], Optimizer]]:
    """What was drawn by the optimizer's seed, and the optimizer with it.

    Raises:
        InputError: an optimizer without these hyperparameters; or see `draw`.
    """
    given = {key: value for key, value in optimizer.settings().items() if key != "optimizer"}
    if not RANGES.keys() <= given.keys():
        names = ", ".join(f"`{name}`" for name in RANGES)
        raise InputError(f"`{type(optimizer).__name__}` can't be swept: it must have {names}")
    drawn = draw(count, seed=given.get("seed", 0), fixed=fixed)
    return [(chosen, type(optimizer)(**{**given, **chosen})) for chosen in drawn]


def sweep(
    optimizer: Optimizer,
    count: int,
    task: Task,
    pool: Pool,
    *,
    store: str | Store,
    split: str = "dev",
    limit: int | None = None,
    fixed: Collection[str] = (),
    budget: Budget | None = None,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Swept]:
    """Runs `count` jobs one after the other, and returns them, the best first.

    Each is a job of its own, with a budget of its own: the same call goes on in the one that was
    interrupted, and goes on with those that were stopped if the budget is higher.

    Raises: see `Optimizer.fit`, `variants`.
    """
    jobs = variants(optimizer, count, fixed=fixed)
    found = []
    with _opened(store) as opened:
        for number, (drawn, job) in enumerate(jobs, start=1):
            system = job.fit(
                task,
                pool,
                split=split,
                limit=limit,
                store=opened,
                runtime=runtime,
                progress=progress,
                settings={**(settings or {}), "name": f"sweep {number} on {task.name}"},
                budget=budget,
            )
            assert system.run is not None
            found.append(Swept(drawn, system, opened.run(system.run)))
    return sorted(found, key=lambda swept: -swept.score)


@contextmanager
def _opened(store: str | Store) -> Iterator[Store]:
    if isinstance(store, Store):
        yield store
        return
    with Store.open(store) as opened:
        yield opened
