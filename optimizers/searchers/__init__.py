"""What proposes graphs in a role-step: one file a searcher, behind `searchers.base`.

To add one, write its file and name it in `SEARCHERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.imported import class_at

if TYPE_CHECKING:
    from swarm.optimizers.searchers.base import Searcher

__all__ = ["SEARCHERS", "find_searcher"]

SEARCHERS: dict[str, str] = {
    "pso": "swarm.optimizers.pso:ParticleSwarm",
    "random": "swarm.optimizers.searchers.random:RandomSearch",
    "cmaes": "swarm.optimizers.searchers.cmaes:CMAES",
    "reinforce": "swarm.optimizers.searchers.reinforce:Reinforce",
}
"""Name → where its class is, known without importing it or the packages it needs."""


def find_searcher(name: str) -> type[Searcher]:
    """The class behind `name`, a key of `SEARCHERS`."""
    found: type[Searcher] = class_at(SEARCHERS[name])
    return found
