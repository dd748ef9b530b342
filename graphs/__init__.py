"""Who talks to whom: graphs of agents, and how to make and draw them."""

from swarm.graphs.graph import MAX_AGENTS, Agent, AgentGraph, name_agents

__all__ = ["MAX_AGENTS", "Agent", "AgentGraph", "name_agents"]
