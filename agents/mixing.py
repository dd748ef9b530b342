"""A pool whose experts' weights can be mixed: a row of coefficients becomes an expert.

The weight-step of Heterogeneous Swarms (arXiv 2502.04510, section 3.2) moves experts within the
span of their initial weights. Nothing is merged here: see `Mixture`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.agents.engines import ENGINES
from swarm.agents.expert import Expert, Mixture, Pool, Script
from swarm.agents.merge import Weights, check_compatible, export
from swarm.agents.messages import Messages
from swarm.errors import InputError, PoolError


class Mixer:
    """Makes experts whose weights are mixtures of those of a pool's experts.

    Scripted experts have no weights: for tests and dry runs, a mixture of them answers as the one
    with the largest coefficient does.
    """

    def __init__(self, pool: Pool) -> None:
        """Reads no more than the headers of the weights.

        Raises:
            PoolError: the pool's experts are not all of one kind; names two and what differs.
        """
        self._experts = list(pool.values())
        first = self._experts[0]
        self._scripted = all(expert.script is not None for expert in self._experts)
        self.sources: Sequence[Weights] = ()
        """What is mixed, one an expert; empty where experts are scripted."""
        if self._scripted:
            return
        for expert in self._experts:
            if not ENGINES[expert.engine].reads_weights or expert.mixture is not None:
                what = "already a mixture" if expert.mixture else f"asked by `{expert.engine}`"
                raise PoolError(
                    f"expert `{expert.name}` is {what}: only experts whose weights are in folders "
                    "can be mixed; a search that moves no weights is `RoleStep`"
                )
            if expert.adapter and (expert.engine, expert.model) != (first.engine, first.model):
                raise PoolError(
                    f"expert `{expert.name}` is an adapter of `{expert.model}`, expert "
                    f"`{first.name}` of `{first.model}`: only adapters of one base can be mixed"
                )
        names = [f"expert `{expert.name}`" for expert in self._experts]
        folders = [expert.adapter or expert.model for expert in self._experts]
        self.sources = check_compatible(folders, names)

    def expert(
        self, k: int, coefficients: Sequence[float] | NDArray[np.float64], name: str
    ) -> Expert:
        """The pool's k-th expert, called `name`, with the weights sum over j of c_j * w_j.

        A unit vector copies nothing: what was ever asked of that expert's weights is known of it.

        Raises:
            InputError: not one finite coefficient an expert, or all are 0.
        """
        row = np.asarray(coefficients, dtype=np.float64)
        if row.shape != (len(self._experts),) or not np.isfinite(row).all() or not row.any():
            raise InputError(
                f"coefficients must be {len(self._experts)} finite numbers, not all 0, one an "
                f"expert; got {coefficients!r}"
            )
        whole = int(np.argmax(row)) if np.count_nonzero(row) == 1 and row.max() == 1 else None
        if self._scripted:
            return self._script(k, row, name)
        given = self._experts[k].model_dump(exclude={"name"})
        if whole is not None:
            key = self.sources[whole].kind
            return Expert(**{**given, "name": name, key: str(self.sources[whole].folder)})
        mixture = Mixture(
            kind=self.sources[0].kind,
            folders=tuple(str(source.folder) for source in self.sources),
            coefficients=tuple(row.tolist()),
        )
        if mixture.kind == "adapter":
            given["adapter"] = None
        return Expert(**{**given, "name": name, "mixture": mixture})

    def _script(self, k: int, row: NDArray[np.float64], name: str) -> Expert:
        scripts = [expert.script for expert in self._experts]
        fields = self._experts[k].model_dump(exclude={"name", "engine", "model"})
        strongest = self._experts[int(np.argmax(np.abs(row)))]
        mixed = functools.partial(_loudest, scripts, row.tolist())
        if np.count_nonzero(row) == 1 and row.max() == 1:
            # The same model: what is known of it is known of this one.
            same = self._experts[k].model_copy(update={"name": name, "model": strongest.model})
            same._script = strongest.script
            return same
        return Expert.scripted(strongest.name, mixed, **fields).model_copy(update={"name": name})


def _loudest(scripts: Sequence[Script | None], row: Sequence[float], messages: Messages) -> str:
    script = scripts[max(range(len(row)), key=lambda k: abs(row[k]))]
    assert script is not None
    return script(messages)


def export_expert(expert: Expert, folder: str) -> Expert:
    """`expert` with its mixture written to `folder`, an ordinary adapter or model folder.

    Raises:
        InputError: it is no mixture, or `folder` is there already.
        PoolError: what it is mixed of has changed or gone.
        SwarmError: it can't be written (disk full); nothing is left behind.
    """
    mixture = expert.mixture
    if mixture is None:
        raise InputError(
            f"expert `{expert.name}` is no mixture: its weights are in a folder already"
        )
    export(check_compatible(mixture.folders), mixture.coefficients, folder)
    return expert.model_copy(update={"mixture": None, mixture.kind: str(folder)})
