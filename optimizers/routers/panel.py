"""A panel: a few experts a question, whose answers are read by one expert or counted in a vote."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from swarm.errors import PoolError
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import star
from swarm.optimizers.outcomes import Floats
from swarm.optimizers.routers.base import Columns, Embedded


@dataclass(kw_only=True, eq=False)
class Panel(Embedded):
    """The graph of a question is the experts that `select` names for it, read by `aggregator`."""

    calls: int = 3
    """Experts a question, at most; `aggregator` is not counted."""
    aggregator: str | None = None
    """The expert that reads their answers; None: the surest expert itself, as the end node."""

    @abstractmethod
    def select(self, questions: Sequence[str]) -> tuple[Columns, Floats]:
        """(n, k) columns, the surest first, and (n, k) weights of their answers in a vote."""

    def highest(self, values: Floats) -> Columns:
        """(n, k) columns of the `calls` highest values, the highest first; of equal ones that of
        the better expert alone."""
        order = np.argsort(-self.learned["means"], kind="stable")
        ranked = order[np.argsort(-values[:, order], axis=1, kind="stable")]
        columns: Columns = ranked[:, : self.calls]
        return columns

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        if not questions:
            return []
        names = self.experts
        made: dict[tuple[int, ...], AgentGraph] = {}
        graphs = []
        for row in self.select(questions)[0]:
            key = tuple(row)
            if key not in made:
                chosen = [names[column] for column in row]
                made[key] = self._graph(chosen)
            graphs.append(made[key])
        return graphs

    def _graph(self, chosen: Sequence[str]) -> AgentGraph:
        if self.aggregator is not None:
            return star([*chosen, self.aggregator], roles=self.role)
        # A star of one is that one alone.
        return star([*chosen[1:], chosen[0]], roles=self.role)

    def without(self, gone: Sequence[str]) -> Self:
        if self.aggregator in gone:
            raise PoolError(
                f"router `{self.name}`: its aggregator `{self.aggregator}` is gone: name another"
            )
        return super().without([name for name in gone if name != self.aggregator])
