"""Cascade: ask the cheap experts, and only where their answers differ the dear one.

LLM cascades with mixture of thought (arXiv 2310.03094): the cheap level answers several times, in
one or several ways of prompting; the share of draws that give the most frequent answer is how sure
it is. From a threshold on that answer stands; below it the question goes up a level.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from swarm.agents.messages import Message, Response
from swarm.errors import InputError, PoolError
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import single
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.asking import Asking
from swarm.optimizers.voting import read_answer
from swarm.runtime.policy import Ask


@dataclass(kw_only=True, eq=False)
class Cascade(Asking):
    """Fitted with outcomes whose `meta` has `sample_answers`: expert → the answers of its draws.

    The threshold is the one that scores best among those with which no more than `escalate` of the
    questions go up.
    """

    name: ClassVar[str] = "cascade"

    first: list[str] = field(default_factory=list)
    """Experts whose draws are counted together; none: the cheapest, or the worst without costs."""
    then: str | None = None
    """The expert of the second level; None: the best one that is not of the first."""
    draws: int = 5
    """Of each expert of the first level."""
    escalate: float = 0.4
    """The highest share of questions, on those it is fitted with, that go to the second level."""
    answer: str | None = None
    """A regular expression: its last match in a response (or that of its group) is the answer.
    None: all of the response."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        names = outcomes.experts
        for name in [*self.first, *([self.then] if self.then else [])]:
            if name not in names:
                raise InputError(f"cascade: no outcomes of `{name}`: there are those of {names}")
        costs, means = self.learned["costs"], self.learned["means"]
        first = self.first or [names[np.lexsort((means, costs))[0]]]
        others = [name for name in names if name not in first] or [names[outcomes.best]]
        then = self.then or max(others, key=lambda name: means[names.index(name)])
        self.facts |= {"first": list(first), "then": then}
        up = outcomes.scores[:, names.index(then)]
        shares, right = np.zeros(len(outcomes)), np.zeros(len(outcomes))
        for row, meta in enumerate(outcomes.meta):
            drawn = meta.get("sample_answers", {})
            answers = [list(drawn.get(name, ()))[: self.draws] for name in first]
            if not any(answers):
                raise InputError(
                    f"question {outcomes.questions[row][:60]!r} has no `sample_answers` of the "
                    "first level in its meta: a cascade is fitted with several draws"
                )
            shares[row], winner = agreement([self.read(a) for each in answers for a in each])
            # A whole level is as good as whoever of it gives its answer.
            given = [
                outcomes.scores[row, names.index(name)]
                for name, each in zip(first, answers, strict=True)
                if winner in [self.read(a) for a in each]
            ]
            right[row] = self._judge(outcomes, row, winner, given)
        self.facts["threshold"] = best_threshold(shares, right, up, self.escalate)

    def _judge(self, outcomes: Outcomes, row: int, winner: str | None, given: list[float]) -> float:
        """The score of the first level's answer: against `gold`, where `meta` has it, else that of
        the experts that gave it."""
        gold = outcomes.meta[row].get("gold")
        if gold is not None:
            right = [gold] if isinstance(gold, str) else list(gold)
            return float(winner in [self.read(each) for each in right])
        return float(np.mean(given)) if given else 0.0

    @property
    def experts(self) -> tuple[str, ...]:
        if not self.facts:
            return super().experts
        return tuple(dict.fromkeys([*self.facts["first"], self.facts["then"]]))

    def without(self, gone: Sequence[str]) -> Self:
        raise PoolError(
            f"router `{self.name}`: both its levels are needed, and of them "
            f"{', '.join(f'`{name}`' for name in gone)} are gone: fit it with this pool"
        )

    def read(self, response: str | None) -> str | None:
        """The answer in a response, plain enough to be compared; None if there is none."""
        return read_answer(response, self.answer)

    def decide(self, draws: Sequence[Sequence[str | None]]) -> tuple[bool, str | None]:
        """Whether a question goes up, and the first level's answer.

        Args:
            draws: of each expert of the first level.
        """
        share, winner = agreement([self.read(each) for own in draws for each in own])
        return share < self.facts["threshold"], winner

    async def agraphs_for(self, questions: Sequence[str], ask: Ask) -> list[AgentGraph]:
        prompts = [(Message("user", question),) for question in questions]
        asked = (ask(name, prompts, draws=self.draws) for name in self.facts["first"])
        drawn = await asyncio.gather(*asked)
        graphs = []
        for row in range(len(questions)):
            texts = [[_text(each) for each in own[row]] for own in drawn]
            up, winner = self.decide(texts)
            # Of the first level whoever gives its answer at once is asked for it.
            agreeing = [
                name
                for name, own in zip(self.facts["first"], texts, strict=True)
                if own and self.read(own[0]) == winner
            ]
            chosen = self.facts["then"] if up or not agreeing else agreeing[0]
            graphs.append(single(chosen, role=self.role))
        return graphs


def agreement(answers: Sequence[str | None]) -> tuple[float, str | None]:
    """The share of draws that give the most frequent answer, and that answer, the first of several;
    (0, None) if nobody gave one."""
    count = Counter(answer for answer in answers if answer is not None)
    if not count:
        return 0.0, None
    [(winner, times)] = count.most_common(1)
    return times / len(answers), winner


def best_threshold(shares: Floats, first: Floats, then: Floats, escalate: float) -> float:
    """The share of agreement from which the first level's answer stands: of those that send no more
    than `escalate` of the questions up the one that scores best; of equals the lowest."""
    best, chosen = -1.0, 0.0
    for threshold in [0.0, *np.unique(shares) + 1e-9]:
        up = shares < threshold
        if up.mean() > escalate:
            break
        score = float(np.where(up, then, first).mean())
        if score > best:
            best, chosen = score, float(threshold)
    return chosen


def _text(drawn: Any) -> str | None:
    return drawn.text if isinstance(drawn, Response) else None
