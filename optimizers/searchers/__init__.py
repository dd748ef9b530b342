"""What proposes graphs in a role-step: one file a searcher, behind `searchers.base`.

To add one, write its file and name it in `SEARCHERS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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
    module, _, cls = SEARCHERS[name].partition(":")
    found: type[Searcher] = getattr(importlib.import_module(module), cls)
    return found
