"""How the best system is found: one file an optimizer, behind `swarm.optimizers.base`.

To add one, write its file and name it in `OPTIMIZERS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarm.optimizers.base import Optimizer

__all__ = ["OPTIMIZERS", "find_optimizer"]

OPTIMIZERS: dict[str, str] = {
    "hetero_swarm": "swarm.optimizers.hetero_swarm:HeterogeneousSwarm",
    "role_step": "swarm.optimizers.role_step:RoleStep",
}
"""Name → where its class is, known without importing it or the packages it needs."""


def find_optimizer(name: str) -> type[Optimizer]:
    """The class behind `name`, a key of `OPTIMIZERS`."""
    module, _, cls = OPTIMIZERS[name].partition(":")
    found: type[Optimizer] = getattr(importlib.import_module(module), cls)
    return found
