"""What every expert of a pool made of every question: all that a router learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swarm.agents.messages import Response
from swarm.errors import InputError
from swarm.runtime.evaluate import Evaluation
from swarm.tasks import Example

Floats = NDArray[np.float64]


class Recorded(Protocol):
    """What a recording of a pool is to `Outcomes`: n questions, m models."""

    @property
    def questions(self) -> Sequence[str]: ...
    @property
    def models(self) -> Sequence[str]: ...
    @property
    def scores(self) -> Any:
        """(n, m), in [0, 1]."""

    @property
    def costs(self) -> Any:
        """(n, m), USD; None where there are none."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """n questions, and what each of m experts made of them when it was asked alone.

    Checked when made: `InputError` for shapes that do not fit or numbers out of range. Arrays are
    copied, and can't be written to.
    """

    questions: tuple[str, ...]
    """n: as an agent is asked them (`Example.prompt`), and as a policy is given them."""
    experts: tuple[str, ...]
    """m names, in the pool's order."""
    scores: Floats
    """(n, m), float64 in [0, 1]; a call that failed scores 0."""
    costs: Floats
    """(n, m), float64, USD of that call; 0 where the expert has no price, or the call failed."""
    answers: tuple[tuple[str | None, ...], ...] | None = None
    """n × m responses; None for one that failed. None where only scores are known."""
    meta: tuple[Mapping[str, Any], ...] = ()
    """n: what else is known of the questions (`Example.meta`); see `tags`."""

    def __post_init__(self) -> None:
        for name in ("questions", "experts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.questions or not self.experts:
            raise InputError("outcomes need at least one question and one expert")
        if len(set(self.experts)) < len(self.experts):
            raise InputError("outcomes name an expert twice: each has one column")
        shape = (len(self.questions), len(self.experts))
        for name, highest in (("scores", 1.0), ("costs", np.inf)):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise InputError(f"`{name}` has shape {array.shape}: must be {shape}")
            if not (np.isfinite(array).all() and ((array >= 0) & (array <= highest)).all()):
                rule = "in [0, 1]" if name == "scores" else "at least 0"
                raise InputError(f"`{name}` has a number that is not {rule}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "meta", tuple(self.meta) or ({},) * shape[0])
        if len(self.meta) != shape[0]:
            raise InputError(f"`meta` has {len(self.meta)} entries: must be {shape[0]}")
        if self.answers is not None:
            object.__setattr__(self, "answers", tuple(map(tuple, self.answers)))
            if [len(row) for row in self.answers] != [shape[1]] * shape[0]:
                raise InputError(f"`answers` must be {shape[0]} rows of {shape[1]} texts")

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        return f"Outcomes({len(self)} questions × {len(self.experts)} experts)"

    @classmethod
    def of(cls, examples: Sequence[Example], evaluations: Sequence[Evaluation]) -> Outcomes:
        """From evaluations of single experts, each on all of `examples` in their order."""
        for each in evaluations:
            if len(each.graph.agents) != 1 or list(each.rows) != list(range(len(examples))):
                raise InputError("outcomes are of single experts, each on all questions in order")
        return cls(
            questions=tuple(example.prompt for example in examples),
            experts=tuple(each.graph.end.expert for each in evaluations),
            scores=np.array([each.scores for each in evaluations]).T,
            costs=np.array([_costs(each) for each in evaluations]).T,
            answers=tuple(zip(*(each.answers for each in evaluations), strict=True)),
            meta=tuple(example.meta for example in examples),
        )

    @classmethod
    def recorded(
        cls,
        recording: Recorded,
        *,
        answers: Sequence[Sequence[str | None]] | None = None,
        meta: Sequence[Mapping[str, Any]] = (),
    ) -> Outcomes:
        """From what real models made of known questions, recorded elsewhere."""
        scores = np.asarray(recording.scores, dtype=np.float64)
        costs = recording.costs
        return cls(
            questions=tuple(recording.questions),
            experts=tuple(recording.models),
            scores=scores,
            costs=np.zeros_like(scores) if costs is None else np.asarray(costs, dtype=np.float64),
            answers=None if answers is None else tuple(map(tuple, answers)),
            meta=tuple(meta),
        )

    @property
    def means(self) -> Floats:
        """(m,): what each expert scores alone."""
        means: Floats = self.scores.mean(axis=0)
        return means

    @property
    def best(self) -> int:
        """The column of the best single expert, the first of several."""
        return int(np.argmax(self.means))

    @property
    def oracle(self) -> float:
        """What who always chose the best expert of each question would score."""
        return float(self.scores.max(axis=1).mean())

    def tags(self, key: str) -> list[str | None]:
        """n: what `meta` says under `key`; None where it says nothing."""
        values = (each.get(key) for each in self.meta)
        return [None if value is None else str(value) for value in values]

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Outcomes:
        """Only these questions, in this order; one may come twice, as in a bootstrap."""
        chosen = [int(row) for row in rows]
        return Outcomes(
            tuple(self.questions[i] for i in chosen),
            self.experts,
            self.scores[chosen],
            self.costs[chosen],
            None if self.answers is None else tuple(self.answers[i] for i in chosen),
            tuple(self.meta[i] for i in chosen),
        )

    def of_experts(self, names: Sequence[str]) -> Outcomes:
        """Only these experts, in this order; `InputError` for one that has no column."""
        missing = [name for name in names if name not in self.experts]
        if missing:
            raise InputError(f"no outcomes of `{missing[0]}`: there are those of {self.experts}")
        columns = [self.experts.index(name) for name in names]
        answers = self.answers
        if answers is not None:
            answers = tuple(tuple(row[j] for j in columns) for row in answers)
        return Outcomes(
            self.questions,
            tuple(names),
            self.scores[:, columns],
            self.costs[:, columns],
            answers,
            self.meta,
        )


def _costs(evaluation: Evaluation) -> list[float]:
    """USD, one an answered question, as if nothing had been known before."""
    [agent] = evaluation.graph.agents
    price = evaluation.prices[agent.name]
    costs = [0.0] * len(evaluation.scores)
    for rows, run in evaluation.runs:
        for row, outcome in zip(rows, run.log[agent.name].outcomes, strict=True):
            if isinstance(outcome, Response):
                costs[row] = price.of(outcome.usage)
    return costs
