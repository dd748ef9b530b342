"""The servers that a pool file describes: started, watched, started again, stopped."""

from swarm.serving.control import down, start, status
from swarm.serving.plan import Launch, Plan, plan, with_free_ports

__all__ = ["Launch", "Plan", "down", "plan", "start", "status", "with_free_ports"]
