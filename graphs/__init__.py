"""Who talks to whom: graphs of agents, and how to make and draw them."""

from swarm.graphs.decode import Decoded, decode, decode_parents, decode_swarm
from swarm.graphs.graph import MAX_AGENTS, Agent, AgentGraph, name_agents
from swarm.graphs.topologies import chain, complete, debate, layered, single, star, tree

__all__ = [
    "MAX_AGENTS",
    "Agent",
    "AgentGraph",
    "Decoded",
    "chain",
    "complete",
    "debate",
    "decode",
    "decode_parents",
    "decode_swarm",
    "layered",
    "name_agents",
    "single",
    "star",
    "tree",
]
