"""What the runs in a store say: the analyses of Heterogeneous Swarms (arXiv 2502.04510)."""

from __future__ import annotations

from swarm.analysis.contribution import Places, by_place, jfk_by_iteration
from swarm.analysis.gain import CollaborativeGain, Group, collaborative_gain
from swarm.analysis.job import JobHistory
from swarm.analysis.pools import Outcome, by_diversity, by_number, outcome
from swarm.analysis.roles import ACTS, AgentActs, Heterogeneity, role_heterogeneity

__all__ = [
    "ACTS",
    "AgentActs",
    "CollaborativeGain",
    "Group",
    "Heterogeneity",
    "JobHistory",
    "Outcome",
    "Places",
    "by_diversity",
    "by_number",
    "by_place",
    "collaborative_gain",
    "jfk_by_iteration",
    "outcome",
    "role_heterogeneity",
]
