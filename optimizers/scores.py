"""What graphs have scored, question by question: no more is evaluated than the search needs.

A search that only compares need not know every score exactly. Whether the rest of the questions
could still make a difference is asked of the searcher (`Searcher.decided`); the questions that are
likeliest to settle it come first.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from swarm.agents.expert import Pool
from swarm.errors import EngineError
from swarm.graphs.graph import AgentGraph
from swarm.runtime.evaluate import Evaluation, Evaluator
from swarm.runtime.runtime import gather

Decided = Callable[[float, float], bool]
"""Whether a score that lies in [low, high] may be any number of it."""
Rules = Callable[[], Sequence[Decided]]
"""One rule a graph, by what is known at the time."""

LEAST = 0.1
"""Share of the questions that are evaluated at a time, at least: below it batches grow small."""


@dataclass
class Spared:
    """Calls that were wanted and not made, by cause."""

    memo: int = 0
    """The graph had been scored before."""
    bounds: int = 0
    """The outcome could not matter any more."""


@dataclass(frozen=True)
class Score:
    """What is known of one graph's score."""

    low: float
    """If all questions that were not asked scored 0."""
    high: float
    """If they all scored 1."""
    estimate: float
    """The mean over those that were asked."""

    @property
    def whole(self) -> bool:
        return self.low == self.high


@dataclass
class Scores:
    """Evaluates graphs, and remembers what they scored.

    `memoise`: a graph's questions are not evaluated twice. `bounds`: an evaluation stops once its
    outcome is decided. Neither changes a score that counts. `racing`: it also stops once its
    chance to matter is gone at this confidence; that may change the search.
    """

    evaluator: Evaluator
    memoise: bool = True
    bounds: bool = True
    racing: float | None = None
    one_by_one: bool = False
    """One graph after the other, as the published code does it."""
    spared: Spared = field(default_factory=Spared)
    wanted: int = 0
    """Calls that all evaluations take, had nothing been spared."""
    failures: int = 0
    """Questions whose trace failed, over all graphs."""
    _known: dict[AgentGraph, dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.size = len(self.evaluator.examples)
        # Racing needs a sample that nobody has chosen, and every graph the same.
        self._shuffled = np.random.default_rng(0).permutation(self.size).tolist()

    def __contains__(self, graph: AgentGraph) -> bool:
        return graph in self._known

    def remember(self, graph: AgentGraph, scores: Mapping[int, float]) -> None:
        """Takes what a graph scored before: question → score."""
        self._known.setdefault(graph, {}).update(scores)

    async def __call__(
        self, graphs: Sequence[AgentGraph], pool: Pool, rules: Rules | None = None
    ) -> tuple[list[Score], list[Evaluation]]:
        """The scores of `graphs`, and the evaluations that were made for them, one a graph.

        Args:
            rules: when a graph's evaluation may stop; asked for before every round of questions.
                Without, all are whole.

        Raises:
            EngineError: every question of every graph that was evaluated failed.
        """
        calls = [len(graph.agents) for graph in graphs]
        self.wanted += sum(calls) * self.size
        if not self.memoise:
            made = await self._whole(graphs, pool)
            for evaluation in made:
                self.remember(evaluation.graph, _by_row(evaluation))
        else:
            first = set(graphs)
            before = {graph: len(self._known.get(graph, ())) for graph in first}
            made = await self._needed(graphs, pool, rules if self.bounds else None)
            for graph, agents in zip(graphs, calls, strict=True):
                known = len(self._known[graph])
                self.spared.memo += agents * (before[graph] if graph in first else known)
                self.spared.bounds += agents * (self.size - known)
                first.discard(graph)
        _refuse_if_all_failed(made)
        self.failures += sum(len(e.errors) for e in made)
        return [self.score(graph) for graph in graphs], made

    def score(self, graph: AgentGraph) -> Score:
        """What is known of a graph; anything, where it was not evaluated."""
        values = list(self._known.get(graph, {}).values())
        total, missing = math.fsum(values), self.size - len(values)
        mean = total / len(values) if values else 0.0
        return Score(total / self.size, math.fsum([*values, missing]) / self.size, mean)

    async def _whole(self, graphs: Sequence[AgentGraph], pool: Pool) -> list[Evaluation]:
        if not self.one_by_one:
            return await self.evaluator(graphs, pool=pool)
        return [(await self.evaluator([graph], pool=pool))[0] for graph in graphs]

    async def _needed(
        self, graphs: Sequence[AgentGraph], pool: Pool, rules: Rules | None
    ) -> list[Evaluation]:
        made: dict[AgentGraph, Evaluation] = {}
        while True:
            wants: dict[AgentGraph, list[Decided]] = {graph: [] for graph in graphs}
            if rules is not None:
                for graph, rule in zip(graphs, rules(), strict=True):
                    wants[graph].append(rule)
            order = self._hardest_first()
            asks = {g: rows for g, want in wants.items() if (rows := self._next(g, want, order))}
            if not asks:
                return list(made.values())
            # Who asks the same questions goes together; all meet in the same waves.
            found = await gather(self.evaluator([g], rows, pool=pool) for g, rows in asks.items())
            for [evaluation] in found:
                graph = evaluation.graph
                made[graph] = made[graph] + evaluation if graph in made else evaluation
                self.remember(graph, _by_row(evaluation))

    def _next(
        self, graph: AgentGraph, rules: Sequence[Decided], hardest_first: Sequence[int]
    ) -> list[int]:
        """The questions to evaluate next; none where the outcome is decided."""
        known = self._known.setdefault(graph, {})
        missing = self.size - len(known)
        if not missing:
            return []
        if not rules:
            return [row for row in range(self.size) if row not in known]
        low, high = self._interval(known)
        if all(rule(low, high) for rule in rules):
            return []
        if self.racing is not None:
            count = max(len(known), math.ceil(LEAST * self.size))  # doubles
            return [row for row in self._shuffled if row not in known][:count]
        right, wrong = max((self._least(rule, known) for rule in rules), key=sum)
        if right + wrong >= missing:
            return [row for row in range(self.size) if row not in known]
        if (short := math.ceil(LEAST * self.size) - right - wrong) > 0:
            wrong += short
        # What is wanted are wrong answers (no better than ...) and right ones (no worse than ...).
        rows = [row for row in hardest_first if row not in known]
        return sorted({*rows[:wrong], *rows[len(rows) - right :]})

    def _interval(self, known: Mapping[int, float]) -> tuple[float, float]:
        total, missing = math.fsum(known.values()), self.size - len(known)
        low, high = total / self.size, math.fsum([*known.values(), missing]) / self.size
        if self.racing is None or not known:
            return low, high
        # Hoeffding's bound for sampling without replacement (Serfling 1974, corollary 1.1).
        n, m = self.size, len(known)
        radius = math.sqrt((1 - (m - 1) / n) * math.log(1 / (1 - self.racing)) / (2 * m))
        # Clearly not better: that it might be the worst is let go.
        return math.inf, min(high, total / m + radius)

    def _least(self, rule: Decided, known: Mapping[int, float]) -> tuple[int, int]:
        """The fewest right and wrong answers with which `rule` could be met."""
        total, missing = math.fsum(known.values()), self.size - len(known)

        def meets(count: int) -> tuple[int, int] | None:
            for right in range(count + 1):
                wrong = count - right
                if rule((total + right) / self.size, (total + missing - wrong) / self.size):
                    return right, wrong
            return None

        if meets(missing) is None:
            return 0, missing
        # The more answers, the narrower the interval: what is met by some is met by more.
        count = bisect.bisect_left(range(1, missing), True, key=lambda n: meets(n) is not None) + 1
        return meets(count) or (0, missing)

    def _hardest_first(self) -> list[int]:
        """All questions, by what all graphs have scored on them so far."""
        total, count = np.ones(self.size), np.full(self.size, 2.0)
        for scores in self._known.values():
            rows = list(scores)
            total[rows] += list(scores.values())
            count[rows] += 1
        order: list[int] = np.argsort(total / count, kind="stable").tolist()
        return order


def _by_row(evaluation: Evaluation) -> dict[int, float]:
    return dict(zip(evaluation.rows, evaluation.scores, strict=True))


def _refuse_if_all_failed(evaluations: Sequence[Evaluation]) -> None:
    """One question may fail; if all of all graphs do, searching on would only cost."""
    if evaluations and all(len(e.errors) == len(e.scores) for e in evaluations):
        first = next(iter(evaluations[0].errors.values()))
        raise EngineError(f"every question of every graph failed; the first error: {first}")
