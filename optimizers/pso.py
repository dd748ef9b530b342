"""The swarm equation of Heterogeneous Swarms (arXiv 2502.04510, section 3), once, as ask/tell.

Symbols are the paper's: x position, v velocity, p a particle's best, g the swarm's best, w the
swarm's worst ever seen, φ_v φ_p φ_g φ_w the weights of inertia, cognition, society and repulsion,
λ the step length.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from swarm.errors import InputError
from swarm.optimizers.searchers.base import Array, Searcher

if TYPE_CHECKING:
    from pyswarms.backend.swarms import Swarm


class SwarmSettings(BaseModel):
    """The knobs of `ParticleSwarm`; "searched" are the ranges that the paper draws them from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inertia: float = Field(0.2, ge=0)
    """φ_v; searched in {0.1, 0.2, 0.3}."""
    cognitive: float = Field(0.3, ge=0)
    """φ_p; searched in {0.1, 0.2, 0.3, 0.4, 0.5}."""
    social: float = Field(0.4, ge=0)
    """φ_g; searched in {0.2, 0.3, 0.4, 0.5, 0.6}."""
    repel: float = Field(0.01, ge=0)
    """φ_w; searched in {0.01, 0.05, 0.1}."""
    step: float = Field(1.0, gt=0)
    """λ at the start; searched in {0.5, 0.6, 0.7, 0.8, 0.9, 1.0}."""
    step_decay: float = Field(0.95, gt=0, le=1)
    """φ_λ: λ ← max(step_floor, step_decay · λ) after every iteration."""
    step_floor: float = Field(0.1, ge=0)
    """λ_min."""
    patience: int = Field(6, ge=1)
    """Stop when g has not changed for so many iterations (the published code says 10)."""
    restart_patience: float = Field(0.67, gt=0)
    """A particle whose best is older than restart_patience · patience iterations returns to it."""
    start_velocity: Literal["random", "zero", "best"] = "random"
    """`random`: towards another particle, x_other − x; `best`: towards the first scores' best."""
    randomness: Literal["scalar", "entry", "none"] = "scalar"
    """r_v … r_w: one number a particle (the paper), one an entry of x (ordinary PSO), or just 1."""
    topology: Literal["star", "ring", "von_neumann"] = "star"
    """Whose best is g: everybody's (the paper), or the best among a particle's neighbours."""

    def of_swarm(self) -> SwarmSettings:
        """These alone, without what a subclass adds."""
        return SwarmSettings(**self.model_dump(include=set(SwarmSettings.model_fields)))


class ParticleSwarm(Searcher):
    """Maximises a function of arrays; the caller evaluates.

    ```
    while not swarm.done:
        swarm.tell([f(x) for x in swarm.ask()])
    ```

    All randomness comes from `rng`, which is the caller's, too: its state is part of `state()`.
    """

    def __init__(
        self,
        positions: Array,
        rng: np.random.Generator,
        settings: SwarmSettings | None = None,
        *,
        iterations: int = 20,
    ) -> None:
        """`positions` of shape (N, ...) are the N particles' first; they are copied.

        Raises:
            InputError: fewer than two particles, or positions that are not finite.
        """
        positions = np.array(positions, dtype=np.float64)
        if positions.ndim < 2 or len(positions) < 2:
            raise InputError(f"a swarm of shape {positions.shape}: needs at least 2 particles")
        if not np.isfinite(positions).all():
            raise InputError("positions must be finite")
        self.settings = settings or SwarmSettings()
        self.rng = rng
        self.iterations = iterations
        self.iteration = 0
        """How many times `tell` was called."""
        self.shape = positions.shape[1:]
        n = len(positions)
        x = positions.reshape(n, -1)
        self._swarm = _new_swarm(x, self._first_velocity(x))
        self._neighbours = neighbours(self.settings.topology, n)
        self._worst = np.zeros(x.shape[1])
        self._worst_score = math.inf
        self._step = self.settings.step
        self._age = np.zeros(n, dtype=np.int64)
        """Iterations since a particle's best was found, or since it was last sent back to it."""
        self._stale = 0
        """Iterations since g changed."""

    @property
    def best(self) -> Array:
        """g, the best position any particle has had."""
        n = int(np.argmin(self._swarm.pbest_cost))
        best: Array = self._swarm.pbest_pos[n].reshape(self.shape).copy()
        return best

    @property
    def best_score(self) -> float:
        """The score of `best`; −∞ before the first `tell`."""
        return -float(np.min(self._swarm.pbest_cost))

    @property
    def worst_score(self) -> float:
        """The lowest score any particle has had; ∞ before the first `tell`."""
        return self._worst_score

    @property
    def best_scores(self) -> Array:
        """Each particle's best score, shape (N,)."""
        scores: Array = -self._swarm.pbest_cost
        return scores

    @property
    def done(self) -> bool:
        return self.iteration >= self.iterations or self._stale >= self.settings.patience

    def ask(self) -> Array:
        """The positions to score next, shape (N, ...). Asking twice gives the same."""
        positions: Array = self._swarm.position.reshape(-1, *self.shape).copy()
        return positions

    def decided(self, i: int, low: float, high: float, floor: float = math.inf) -> bool:
        """A score moves nothing that is no better than the particle's best, and not the new worst:
        no worse than the swarm's worst, or better than another that is new."""
        best: float = -self._swarm.pbest_cost[i]
        return high <= best and (low >= self._worst_score or low > floor)

    def tell(self, scores: Array | list[float], at: Array | None = None) -> None:
        """Takes the scores of what `ask` gave, higher is better, and moves the particles.

        `at`, shape (N, ...), are the positions that were scored where these are not what `ask`
        gave: the particles are put there first.

        Raises:
            InputError: not one finite score a particle.
        """
        swarm, how = self._swarm, self.settings
        if at is not None:
            swarm.position = np.array(at, dtype=np.float64).reshape(swarm.position.shape)
        given = np.array(scores, dtype=np.float64)
        if given.shape != (swarm.n_particles,) or not np.isfinite(given).all():
            raise InputError(
                f"scores must be {swarm.n_particles} finite numbers, one a particle; got {scores!r}"
            )
        before = self.best_score
        swarm.current_cost = -given  # pyswarms minimises
        improved = given > -swarm.pbest_cost
        _update_bests(swarm)
        worst = int(np.argmin(given))
        if given[worst] < self._worst_score:
            self._worst, self._worst_score = swarm.position[worst].copy(), float(given[worst])
        self._age = np.where(improved, 0, self._age + 1)
        self._stale = 0 if self.best_score > before else self._stale + 1
        self.iteration += 1

        g = self._social_best()
        if how.start_velocity == "best" and self.iteration == 1:
            swarm.velocity = g - swarm.position
        restarted = self._age > how.restart_patience * how.patience
        swarm.position[restarted] = swarm.pbest_pos[restarted]
        swarm.velocity[restarted] = 0.0
        self._age[restarted] = 0
        self._move(g)

    def _move(self, g: Array) -> None:
        """Equation 2 of the paper: v and x of every particle."""
        swarm, how = self._swarm, self.settings
        x, v, p, w = swarm.position, swarm.velocity, swarm.pbest_pos, self._worst
        phi = np.array([how.inertia, how.cognitive, how.social, how.repel])
        shape = {"scalar": (4, len(x), 1), "entry": (4, *x.shape), "none": (4, 1, 1)}
        r = (
            np.ones(shape["none"])
            if how.randomness == "none"
            else self.rng.random(shape[how.randomness])
        )
        # a = r·φ; C = Σ a normalises it. All φ may be 0, or all r: then nothing pulls.
        a = r * phi[:, None, None]
        c = a.sum(axis=0)
        pull = a[0] * v + a[1] * (p - x) + a[2] * (g - x) + a[3] * (x - w)
        swarm.velocity = np.divide(pull, c, out=np.zeros_like(pull), where=c > 0)
        swarm.position = x + self._step * swarm.velocity
        self._step = max(how.step_floor, how.step_decay * self._step)

    def _first_velocity(self, x: Array) -> Array:
        if self.settings.start_velocity != "random":
            return np.zeros_like(x)
        n = len(x)
        # Another particle, never itself: skip over the own index.
        other = self.rng.integers(0, n - 1, size=n)
        other += other >= np.arange(n)
        return x[other] - x

    def _social_best(self) -> Array:
        """g as each particle sees it, shape (N, d) or (d,)."""
        topology = _topology(self._neighbours)
        best: Array
        if self._neighbours is None:
            best, self._swarm.best_cost = topology.compute_gbest(self._swarm)
            self._swarm.best_pos = best
        else:
            best, _ = topology.compute_gbest(self._swarm, p=2, k=self._neighbours.shape[1])
        return best

    def state(self) -> dict[str, Any]:
        """All of it as JSON values; `restore` gives a swarm that goes on bit for bit."""
        swarm = self._swarm
        return {
            "settings": self.settings.model_dump(mode="json"),
            "iterations": self.iterations,
            "iteration": self.iteration,
            "shape": list(self.shape),
            "arrays": {
                "position": pack(swarm.position),
                "velocity": pack(swarm.velocity),
                "pbest_pos": pack(swarm.pbest_pos),
                "pbest_cost": pack(swarm.pbest_cost),
                "best_pos": pack(swarm.best_pos),
                "worst": pack(self._worst),
                "scalars": pack(np.array([swarm.best_cost, self._worst_score, self._step])),
            },
            "age": self._age.tolist(),
            "stale": self._stale,
            "rng": self.rng.bit_generator.state,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The swarm that `state` was taken from."""
        arrays = {name: unpack(data) for name, data in state["arrays"].items()}
        swarm = cls.__new__(cls)
        swarm.settings = SwarmSettings.model_validate(state["settings"])
        swarm.rng = restore_rng(state["rng"])
        swarm.iterations = state["iterations"]
        swarm.iteration = state["iteration"]
        swarm.shape = tuple(state["shape"])
        swarm._swarm = _new_swarm(arrays["position"], arrays["velocity"])
        swarm._swarm.pbest_pos = arrays["pbest_pos"]
        swarm._swarm.pbest_cost = arrays["pbest_cost"]
        swarm._swarm.best_pos = arrays["best_pos"]
        best_cost, swarm._worst_score, swarm._step = arrays["scalars"].tolist()
        swarm._swarm.best_cost = best_cost
        swarm._neighbours = neighbours(swarm.settings.topology, len(arrays["position"]))
        swarm._worst = arrays["worst"]
        swarm._age = np.array(state["age"], dtype=np.int64)
        swarm._stale = state["stale"]
        return swarm


def restore_rng(state: Mapping[str, Any]) -> np.random.Generator:
    """The generator whose `bit_generator.state` this is."""
    bits: np.random.BitGenerator = getattr(np.random, state["bit_generator"])()
    bits.state = dict(state)
    return np.random.Generator(bits)


def neighbours(topology: str, n: int) -> NDArray[np.int64] | None:
    """Row i: the particles whose bests particle i sees, itself included; None: all see all.

    Ring: one to each side. Von Neumann: four on a torus as square as n allows.
    """
    if topology == "star":
        return None
    i = np.arange(n)
    if topology == "ring":
        return np.stack([i, (i - 1) % n, (i + 1) % n], axis=1)
    rows = max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
    columns = n // rows
    row, column = divmod(i, columns)
    across = [(column + d) % columns + row * columns for d in (-1, 1)]
    along = [(row + d) % rows * columns + column for d in (-1, 1)]
    return np.stack([i, *across, *along], axis=1)


@contextmanager
def _quiet_pyswarms() -> Iterator[None]:
    """Keeps pyswarms from setting up logging: it would replace the process's root handlers and
    write `report.log` into the working directory, on import and whenever a topology is made."""
    before = os.environ.get("LOG_CFG")
    os.environ["LOG_CFG"] = str(Path(__file__).with_name("pyswarms_logging.yaml"))
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOG_CFG"]
        else:
            os.environ["LOG_CFG"] = before


def _new_swarm(x: Array, v: Array) -> Swarm:
    with _quiet_pyswarms():
        from pyswarms.backend.swarms import Swarm

    n = len(x)
    return Swarm(
        position=x.copy(),
        velocity=v.copy(),
        pbest_pos=x.copy(),
        pbest_cost=np.full(n, np.inf),
        best_pos=x[0].copy(),
    )


def _update_bests(swarm: Swarm) -> None:
    """p of every particle; ties keep the older one."""
    from pyswarms.backend.operators import compute_pbest

    swarm.pbest_pos, swarm.pbest_cost = compute_pbest(swarm)


def _topology(indices: NDArray[np.int64] | None) -> Any:
    """pyswarms' neighbourhoods; given fixed indices, since it would look for neighbours by distance
    (ring) or in as many dimensions as x has (von Neumann)."""
    with _quiet_pyswarms():
        from pyswarms.backend.topology import Ring, Star

        if indices is None:
            return Star()
        ring = Ring(static=True)
    ring.neighbor_idx = indices
    return ring


def pack(array: Array) -> dict[str, Any]:
    """An array as JSON values, bit for bit."""
    data = base64.b64encode(np.ascontiguousarray(array, dtype="<f8").tobytes()).decode()
    return {"shape": list(array.shape), "f8": data}


def unpack(packed: Mapping[str, Any]) -> Array:
    """What `pack` was given."""
    flat = np.frombuffer(base64.b64decode(packed["f8"]), dtype="<f8")
    return flat.reshape(packed["shape"]).astype(np.float64)
