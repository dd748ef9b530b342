"""Baselines that need no training: one file each, behind `baselines.base`.

To add one, write its file, and name it here and in `swarm.optimizers.OPTIMIZERS`.
"""

from swarm.optimizers.baselines.base import Baseline
from swarm.optimizers.baselines.best_single import BestSingle
from swarm.optimizers.baselines.chain import Chain
from swarm.optimizers.baselines.dare_ties import DareTies
from swarm.optimizers.baselines.greedy_soup import GreedySoup
from swarm.optimizers.baselines.lorahub import LoraHub
from swarm.optimizers.baselines.majority_vote import MajorityVote
from swarm.optimizers.baselines.model_swarms import ModelSwarms
from swarm.optimizers.baselines.random_graphs import RandomGraphs
from swarm.optimizers.baselines.star import Star
from swarm.optimizers.baselines.uniform_soup import UniformSoup

__all__ = [
    "Baseline",
    "BestSingle",
    "Chain",
    "DareTies",
    "GreedySoup",
    "LoraHub",
    "MajorityVote",
    "ModelSwarms",
    "RandomGraphs",
    "Star",
    "UniformSoup",
]
