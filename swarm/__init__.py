"""Multi-LLM systems as graphs of agents: searched by particle swarms, run in waves, recorded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm.agents.expert import Expert, Pool, Price, Sampling
    from swarm.agents.recording import Recording
    from swarm.agents.role import Role
    from swarm.errors import SwarmError
    from swarm.graphs.graph import Agent, AgentGraph
    from swarm.optimizers.budget import Budget
    from swarm.optimizers.hetero_swarm import HeterogeneousSwarm
    from swarm.optimizers.masrouter.optimizer import MasRouter
    from swarm.optimizers.role_step import RoleStep, random_graphs
    from swarm.optimizers.symbolic_moe import SymbolicMoE
    from swarm.runtime.runtime import Runtime
    from swarm.runtime.system import System, chain, evaluate, single, star
    from swarm.store import Store
    from swarm.tasks import Example, Task

_EXPORTS = {
    "Agent": "swarm.graphs.graph",
    "AgentGraph": "swarm.graphs.graph",
    "Budget": "swarm.optimizers.budget",
    "Example": "swarm.tasks",
    "Expert": "swarm.agents.expert",
    "HeterogeneousSwarm": "swarm.optimizers.hetero_swarm",
    "MasRouter": "swarm.optimizers.masrouter.optimizer",
    "Pool": "swarm.agents.expert",
    "Price": "swarm.agents.expert",
    "Recording": "swarm.agents.recording",
    "Role": "swarm.agents.role",
    "RoleStep": "swarm.optimizers.role_step",
    "Runtime": "swarm.runtime.runtime",
    "Sampling": "swarm.agents.expert",
    "Store": "swarm.store",
    "SwarmError": "swarm.errors",
    "SymbolicMoE": "swarm.optimizers.symbolic_moe",
    "System": "swarm.runtime.system",
    "Task": "swarm.tasks",
    "chain": "swarm.runtime.system",
    "evaluate": "swarm.runtime.system",
    "random_graphs": "swarm.optimizers.role_step",
    "single": "swarm.runtime.system",
    "star": "swarm.runtime.system",
}

__all__ = [
    "Agent",
    "AgentGraph",
    "Budget",
    "Example",
    "Expert",
    "HeterogeneousSwarm",
    "MasRouter",
    "Pool",
    "Price",
    "Recording",
    "Role",
    "RoleStep",
    "Runtime",
    "Sampling",
    "Store",
    "SwarmError",
    "SymbolicMoE",
    "System",
    "Task",
    "chain",
    "evaluate",
    "random_graphs",
    "single",
    "star",
]


def __getattr__(name: str) -> Any:
    # Exports are loaded when first used: `import swarm` must not wait for what is not needed.
    if name not in _EXPORTS:
        raise AttributeError(f"module `swarm` has no attribute `{name}`")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
