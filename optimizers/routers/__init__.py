"""Routers: each question goes to one expert. One file a router, behind `routers.base`.

To add one, write its file and name it in `ROUTERS`, and in `POLICIES` so that it can be loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.imported import class_at

if TYPE_CHECKING:
    from swarm.optimizers.routers.base import Router

__all__ = ["ROUTERS", "find_router"]

ROUTERS: dict[str, str] = {
    "best_single": "swarm.optimizers.routers.best_single:BestSingle",
    "random": "swarm.optimizers.routers.random:Random",
    "oracle": "swarm.optimizers.routers.oracle:Oracle",
    "knn": "swarm.optimizers.routers.knn:KNN",
    "carrot": "swarm.optimizers.routers.carrot:Carrot",
    "router_dc": "swarm.optimizers.routers.router_dc:RouterDC",
    "domains": "swarm.optimizers.routers.domains:Domains",
    "matrix_factorization": "swarm.optimizers.routers.matrix_factorization:MatrixFactorization",
    "bandit": "swarm.optimizers.routers.bandit:Bandit",
    "smoothie": "swarm.optimizers.routers.smoothie:Smoothie",
    "select_llm": "swarm.optimizers.routers.select_llm:SelectLLM",
    "jury": "swarm.optimizers.routers.jury:Jury",
    "expertise_tree": "swarm.optimizers.routers.expertise_tree:ExpertiseTree",
    "cascade": "swarm.optimizers.routers.cascade:Cascade",
    "llm": "swarm.optimizers.routers.llm:LLMRouter",
    "blend": "swarm.optimizers.routers.blend:Blend",
}
"""Name → where its class is, known without importing it or the packages it needs."""


def find_router(name: str) -> type[Router]:
    """The class behind `name`, a key of `ROUTERS`."""
    found: type[Router] = class_at(ROUTERS[name])
    return found
