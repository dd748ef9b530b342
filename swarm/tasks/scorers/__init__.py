"""How well a response answers an example: one file a scorer, behind `Scorer`."""

from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.choice import Choice
from swarm.tasks.scorers.exact import Exact
from swarm.tasks.scorers.f1 import F1
from swarm.tasks.scorers.function import Function
from swarm.tasks.scorers.number import Number
from swarm.tasks.scorers.registry import SCORERS, ScorerSpec, get_scorer

__all__ = [
    "F1",
    "SCORERS",
    "Choice",
    "Exact",
    "Function",
    "Number",
    "Scorer",
    "ScorerSpec",
    "get_scorer",
]
