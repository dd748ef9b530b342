"""How the best system is found: one file an optimizer, behind `swarm.optimizers.base`.

To add one, write its file and name it in `OPTIMIZERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.imported import class_at

if TYPE_CHECKING:
    from swarm.optimizers.base import Optimizer

__all__ = ["OPTIMIZERS", "find_optimizer"]

OPTIMIZERS: dict[str, str] = {
    "best_single": "swarm.optimizers.baselines.best_single:BestSingle",
    "chain": "swarm.optimizers.baselines.chain:Chain",
    "dare_ties": "swarm.optimizers.baselines.dare_ties:DareTies",
    "greedy_soup": "swarm.optimizers.baselines.greedy_soup:GreedySoup",
    "hetero_swarm": "swarm.optimizers.hetero_swarm:HeterogeneousSwarm",
    "lorahub": "swarm.optimizers.baselines.lorahub:LoraHub",
    "majority_vote": "swarm.optimizers.baselines.majority_vote:MajorityVote",
    "masrouter": "swarm.optimizers.masrouter.optimizer:MasRouter",
    "model_swarms": "swarm.optimizers.baselines.model_swarms:ModelSwarms",
    "random_graphs": "swarm.optimizers.baselines.random_graphs:RandomGraphs",
    "role_step": "swarm.optimizers.role_step:RoleStep",
    "router": "swarm.optimizers.router:RouterOptimizer",
    "star": "swarm.optimizers.baselines.star:Star",
    "symbolic_moe": "swarm.optimizers.symbolic_moe:SymbolicMoE",
    "uniform_soup": "swarm.optimizers.baselines.uniform_soup:UniformSoup",
    "wording": "swarm.optimizers.wording:WordingOptimizer",
}
"""Name → where its class is, known without importing it or the packages it needs."""


def find_optimizer(name: str) -> type[Optimizer]:
    """The class behind `name`, a key of `OPTIMIZERS`."""
    found: type[Optimizer] = class_at(OPTIMIZERS[name])
    return found
