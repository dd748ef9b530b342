"""Jury: a few experts a question, and how much each one's vote counts there, learned together.

Ours, after SelectLLM. A vote that weighs each expert by how often it is right counts twice what
two experts know alike. Here weights are learned as votes are counted: the answer a of question x is
given by experts J(a), and the weights of

    P(a is right | x) ∝ exp(Σ over j in J(a) of w_j + ⟨u_j, v(x)⟩)

are those with the highest likelihood, u drawn to 0 and w to their mean: a conditional logit
(McFadden, 1974), also known as a log-linear pool of experts. v is the question's vector, so that a
weight depends on what is asked. The `calls` experts with the highest weights are asked, and their
votes are counted by an expert of its own (`voting.py`), for which no model is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.agents.expert import Pool
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import star
from swarm.optimizers.ballots import Ballots
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns
from swarm.optimizers.routers.panel import Panel
from swarm.optimizers.voting import WeightedCount, counter, read_answer

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""On the squares of u, for cross-validation to choose from."""
FOLDS = 4
STEPS = 60
"""Of L-BFGS."""


@dataclass(kw_only=True, eq=False)
class Jury(Panel):
    """Reads `Outcomes.answers`: experts agree where their answers are the same.

    An estimate is a weight, not a score: a trade-off with cost is in that unit.
    """

    name: ClassVar[str] = "jury"
    axes: ClassVar = {"weights": 1, "bias": 0}

    calls: int = 5
    aggregator: str | None = None
    """The expert that reads their answers in place of a vote."""
    answer: str | None = None
    """A regular expression: its last match in a response (or that of its group) is the answer.
    None: all of the response."""
    penalty: float | None = None
    """On the squares of u; None: the one of `PENALTIES` with the highest likelihood by
    cross-validation."""
    stiffness: float = 1.0
    """The penalty on how far w is from its mean."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        vectors = self.vectors(outcomes.questions).astype(np.float64)
        self.learned["centre"] = vectors.mean(axis=0)
        ballots = Ballots.of(outcomes, vectors - self.learned["centre"], self.read)
        penalty = self._penalty(ballots, rng) if self.penalty is None else self.penalty
        self.facts["penalty"] = penalty
        weights = self._learn(ballots, penalty)
        self.learned["weights"], self.learned["bias"] = weights[:-1], weights[-1]

    def _penalty(self, ballots: Ballots, rng: np.random.Generator) -> float:
        fold = rng.permutation(len(ballots)) % FOLDS
        if len(ballots) < 2 * FOLDS:
            return PENALTIES[-1]
        losses = np.zeros(len(PENALTIES))
        for each in range(FOLDS):
            known, unknown = ballots.take(fold != each), ballots.take(fold == each)
            weights = None
            for i, penalty in reversed(list(enumerate(PENALTIES))):
                weights = self._learn(known, penalty, weights)
                losses[i] += unknown.loss(weights)[0]
        return PENALTIES[int(np.argmin(losses))]

    def _learn(self, ballots: Ballots, penalty: float, start: Floats | None = None) -> Floats:
        """(d + 1, m): u, and w below it."""
        from scipy.optimize import minimize

        shape = ballots.vectors.shape[1] + 1, ballots.answers.shape[1]
        if start is None:
            start = np.zeros(shape)
            start[-1] = 1.0

        def objective(flat: Floats) -> tuple[float, Floats]:
            weights = flat.reshape(shape)
            loss, slope = ballots.loss(weights)
            off = weights[-1] - weights[-1].mean()
            slope[:-1] += 2 * penalty * weights[:-1]
            slope[-1] += 2 * self.stiffness * off
            loss += penalty * np.square(weights[:-1]).sum() + self.stiffness * np.square(off).sum()
            return loss, slope.ravel()

        found = minimize(
            objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        weights: Floats = found.x.reshape(shape)
        return weights

    def estimates(self, questions: Sequence[str]) -> Floats:
        centred = self.vectors(questions) - self.learned["centre"]
        weights: Floats = centred @ self.learned["weights"] + self.learned["bias"]
        return weights

    def select(self, questions: Sequence[str]) -> tuple[Columns, Floats]:
        weights = self.estimates(questions)
        chosen = self.highest(self.less_cost(weights, questions))
        return chosen, np.take_along_axis(weights, chosen, axis=1)

    def read(self, response: str | None) -> str | None:
        return read_answer(response, self.answer)

    def extend(self, pool: Pool) -> Pool:
        """With who counts votes: one for every number of voters there can be."""
        if self.aggregator is not None:
            return pool
        identity = self.fingerprint.hex()
        counters = [
            counter(_name(voters), pool, WeightedCount(voters, self._weigh, self.read, identity))
            for voters in range(2, min(self.calls, len(self.experts)) + 1)
            if _name(voters) not in pool
        ]
        return pool.of([*pool.values(), *counters])

    def _weigh(self, question: str) -> Sequence[float]:
        [chosen], [weights] = self.select([question])
        return [float(weights[i]) for i in np.argsort(chosen)]

    def _graph(self, chosen: Sequence[str]) -> AgentGraph:
        if self.aggregator is not None or len(chosen) < 2:
            return super()._graph(chosen)
        # In the pool's order, so that the same choice is the same graph.
        voters = [name for name in self.experts if name in chosen]
        return star([*voters, _name(len(voters))], roles=self.role)


def _name(voters: int) -> str:
    return f"jury of {voters}"
