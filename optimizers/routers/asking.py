"""What routers share that ask experts before they decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from swarm.errors import InputError
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.routers.base import Columns, Router


@dataclass(kw_only=True, eq=False)
class Asking(Router):
    """A router without an answer of its own: only `agraphs_for` can say where a question goes."""

    def route(self, questions: Sequence[str]) -> Columns:
        self._refuse()

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"router `{self.name}` asks experts before it decides: use `agraphs_for`, or the system"
        )
