"""Graphs are scored on a split: every graph over the whole column of questions, all at once."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from swarm.agents.engines.determinism import Determinism
from swarm.agents.expert import Pool
from swarm.agents.messages import Response, Usage
from swarm.agents.role import Role
from swarm.agents.shortening import Cuts, write
from swarm.errors import EngineError, InputError
from swarm.graphs.graph import AgentGraph
from swarm.runtime.compile import GraphRun, resolve
from swarm.runtime.program import Program, run_together
from swarm.runtime.scheduler import Scheduler
from swarm.store.records import EvaluationRecord, QuestionRecord
from swarm.tasks import Example, Task


@dataclass(frozen=True)
class Summary:
    """The figures of one evaluation."""

    score: float
    """Mean over the questions, in [0, 1]."""
    low: float
    high: float
    """95 % confidence interval of `score`."""
    questions: int
    failures: int
    """Questions whose trace failed; they score 0."""
    calls: int
    """Agents × questions that were answered."""
    asked: int
    """Of these, calls that went to an engine; the others were known or asked by another already."""
    tokens: int
    """Read and written by all calls, as if none had been known."""
    cost: float
    """USD of all calls by the experts' prices."""
    seconds: float
    """Wall time; of all graphs that were evaluated together."""
    shortened: int
    """Calls whose prompts were shortened to fit their experts' contexts."""
    determinism: str
    """The weakest `Determinism` of what was asked, for all graphs that were evaluated together:
    ``bitwise`` where everything was known."""

    def __str__(self) -> str:
        failed = f", {self.failures} failed" if self.failures else ""
        cut = f", {self.shortened} prompts shortened" if self.shortened else ""
        return (
            f"score {self.score:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"on {self.questions} questions{failed}; "
            f"{self.calls} calls, {self.asked} asked, {self.tokens} tokens{cut}, "
            f"{self.seconds:.1f} s, {self.determinism}"
        )

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(eq=False)
class Evaluation:
    """One graph scored on (part of) a split. Lists have one entry a question."""

    graph: AgentGraph
    split: str
    answers: Sequence[str | None]
    scores: Sequence[float]
    runs: Sequence[tuple[range, GraphRun]]
    """The columns that the split was cut into: which questions, and what their agents did."""
    seconds: float
    prices: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Agent → price of its expert."""
    rows: Sequence[int] = ()
    """Which questions of the split these are."""
    run: int | None = None
    """The id of the run in the store, where it was recorded."""
    determinism: Determinism = Determinism.BITWISE
    """The weakest of what was asked, for all graphs that were evaluated together."""

    @property
    def score(self) -> float:
        return math.fsum(self.scores) / len(self.scores)

    def __add__(self, other: Evaluation) -> Evaluation:
        """Both as one, where `other` is the same graph on other questions."""
        begin = len(self.rows)
        shifted = [(range(r.start + begin, r.stop + begin), run) for r, run in other.runs]
        return replace(
            self,
            answers=[*self.answers, *other.answers],
            scores=[*self.scores, *other.scores],
            runs=[*self.runs, *shifted],
            seconds=self.seconds + other.seconds,
            rows=[*self.rows, *other.rows],
            determinism=Determinism.weakest((self.determinism, other.determinism)),
        )

    @cached_property
    def errors(self) -> dict[int, str]:
        """Question → why its trace failed: the first error on its way."""
        found: dict[int, str] = {}
        for (_, question), error in self.call_errors.items():
            found.setdefault(question, error)
        return found

    @cached_property
    def call_errors(self) -> dict[tuple[int, int], str]:
        """(agent's position, question) → why there is no answer."""
        found: dict[tuple[int, int], str] = {}
        for agent in self.graph.order:
            for rows, run in self.runs:
                entry = run.log[agent.name]
                for k, outcome in enumerate(entry.outcomes):
                    if isinstance(outcome, EngineError):
                        row = rows[k if entry.rows is None else entry.rows[k]]
                        found[self.graph.position(agent.name), row] = str(outcome)
        return found

    @cached_property
    def shortened(self) -> dict[tuple[int, int], Cuts]:
        """(agent's position, question) → how its prompt was shortened."""
        found: dict[tuple[int, int], Cuts] = {}
        for rows, run in self.runs:
            for name, entry in run.log.items():
                for k, cuts in entry.cuts.items():
                    row = rows[k if entry.rows is None else entry.rows[k]]
                    found[self.graph.position(name), row] = cuts
        return found

    def summary(self) -> Summary:
        low, high = interval(self.scores)
        calls = asked = tokens = 0
        cost = 0.0
        for _, run in self.runs:
            for agent, entry in run.log.items():
                answered = [isinstance(outcome, Response) for outcome in entry.outcomes]
                usages = [o.usage for o in entry.outcomes if isinstance(o, Response)]
                used = Usage(sum(u[0] for u in usages), sum(u[1] for u in usages))
                calls += len(usages)
                asked += sum(a and not c for a, c in zip(answered, entry.cached, strict=True))
                tokens += used.total
                cost += self.prices[agent].of(used)
        return Summary(
            score=self.score,
            low=low,
            high=high,
            questions=len(self.scores),
            failures=len(self.errors),
            calls=calls,
            asked=asked,
            tokens=tokens,
            cost=cost,
            seconds=self.seconds,
            shortened=len(self.shortened),
            determinism=self.determinism.value,
        )


def interval(scores: Sequence[float], z: float = 1.959964) -> tuple[float, float]:
    """95 % confidence interval of a mean of scores in [0, 1].

    Wilson's for right-or-wrong scores. It applies to graded ones, too, whose variance is smaller,
    and is then a little wide.
    """
    n = len(scores)
    mean = math.fsum(scores) / n
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def select(task: Task, split: str, limit: int | None) -> tuple[Example, ...]:
    """The examples of a split, or the first so many.

    Raises:
        TaskError: there is no such split.
        InputError: `limit` leaves none.
    """
    if limit is not None and limit < 1:
        raise InputError(f"`limit` is {limit}: at least 1 question must be asked")
    return task.split(split)[:limit]


class Evaluator:
    """Scores graphs on one split of one task.

    Raises (when made): see `select`; (when a graph comes): `PoolError` for an expert or role that
    isn't there, before anything is run.
    """

    def __init__(
        self,
        task: Task,
        split: str,
        pool: Pool,
        scheduler: Scheduler,
        *,
        roles: Mapping[str, Role] | None = None,
        limit: int | None = None,
    ) -> None:
        """`limit` takes the first so many questions of the split."""
        self.task = task
        self.split = split
        self.pool = pool
        self.roles = roles or {}
        self.examples = select(task, split, limit)
        self.scheduler = scheduler
        self.questions = [example.prompt for example in self.examples]
        self._records = [
            QuestionRecord(example.id, example.prompt, list(example.golds))
            for example in self.examples
        ]

    async def __call__(
        self,
        graphs: Sequence[AgentGraph],
        rows: Sequence[int] | None = None,
        *,
        pool: Pool | None = None,
        cuts: Mapping[tuple[int, int], Cuts] | None = None,
    ) -> list[Evaluation]:
        """Runs all `graphs` together; one that occurs twice is run once.

        Args:
            rows: only these of the questions, in this order.
            pool: has the graphs' experts, in place of the one this was made with.
            cuts: (agent's position, question's in `rows`) → how its prompt is shortened, and no
                other is. None: as it turns out to be needed.
        """
        rows = range(len(self.examples)) if rows is None else rows
        different = dict.fromkeys(graphs)
        found = await self.each([(graph, rows) for graph in different], pool=pool, cuts=cuts)
        by_graph = dict(zip(different, found, strict=True))
        return [by_graph[graph] for graph in graphs]

    async def each(
        self,
        work: Sequence[tuple[AgentGraph, Sequence[int]]],
        *,
        pool: Pool | None = None,
        cuts: Mapping[tuple[int, int], Cuts] | None = None,
    ) -> list[Evaluation]:
        """Runs every graph over questions of its own, all together; see `__call__`."""
        started = time.perf_counter()
        pool = pool or self.pool
        programs = [
            Program(graph, resolve(graph, pool, self.roles), lambda: self.scheduler)
            for graph, _ in work
        ]
        runs = await run_together(
            [
                (program, [self.questions[i] for i in rows])
                for program, (_, rows) in zip(programs, work, strict=True)
            ],
            cuts=cuts,
        )
        seconds = time.perf_counter() - started
        determinism = Determinism.weakest(
            self._determinism(program, columns)
            for program, columns in zip(programs, runs, strict=True)
        )
        return [
            self._evaluation(program, columns, rows, seconds, determinism)
            for program, columns, (_, rows) in zip(programs, runs, work, strict=True)
        ]

    def _evaluation(
        self,
        program: Program,
        runs: Sequence[tuple[range, GraphRun]],
        rows: Sequence[int],
        seconds: float,
        determinism: Determinism,
    ) -> Evaluation:
        answers = [answer for _, run in runs for answer in run.answers]
        return Evaluation(
            graph=program.graph,
            split=self.split,
            answers=answers,
            scores=self._score(answers, rows),
            runs=runs,
            seconds=seconds,
            prices={name: node.expert.price for name, node in program.nodes.items()},
            rows=rows,
            determinism=determinism,
        )

    def _determinism(self, program: Program, runs: Sequence[tuple[range, GraphRun]]) -> Determinism:
        """The weakest of what was asked for one graph."""
        engine = self.scheduler.residency.engine
        found = [Determinism.BITWISE]
        for _, run in runs:
            for name, entry in run.log.items():
                fresh = [
                    outcome.seedless
                    for known, outcome in zip(entry.cached, entry.outcomes, strict=True)
                    if not known and isinstance(outcome, Response)
                ]
                if fresh:
                    expert = program.nodes[name].expert
                    promised = engine(expert.engine).determinism(expert)
                    found.append(promised.of_asked(seedless=any(fresh)))
        return Determinism.weakest(found)

    def _score(self, answers: Sequence[str | None], rows: Sequence[int]) -> list[float]:
        score = self.task.score
        return [
            0.0 if answer is None else score(self.examples[row], answer)
            for row, answer in zip(rows, answers, strict=True)
        ]

    def record(
        self, evaluation: Evaluation, info: Mapping[str, Any] | None = None
    ) -> EvaluationRecord:
        """What the store keeps of `evaluation`."""
        agents = evaluation.graph.agents
        n = len(evaluation.rows)
        keys: list[list[bytes | None]] = [[None] * n for _ in agents]
        cached: list[list[bool]] = [[False] * n for _ in agents]
        failed = evaluation.call_errors
        for position, agent in enumerate(agents):
            for rows, run in evaluation.runs:
                entry = run.log[agent.name]
                if entry.keys is None:
                    continue
                where = rows if entry.rows is None else [rows[i] for i in entry.rows]
                for row, key, known in zip(where, entry.keys, entry.cached, strict=True):
                    if not failed or (position, row) not in failed:
                        keys[position][row] = key
                        cached[position][row] = known
        return EvaluationRecord(
            graph=evaluation.graph,
            split=self.split,
            task=self.task.fingerprint,
            score=evaluation.score,
            positions=evaluation.rows,
            questions=[self._records[i] for i in evaluation.rows],
            scores=evaluation.scores,
            keys=keys,
            cached=cached,
            errors=evaluation.errors,
            call_errors=failed,
            shortened={where: write(cuts) for where, cuts in evaluation.shortened.items()},
            info=dict(info or {}),
        )
