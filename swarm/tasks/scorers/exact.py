"""`exact`: the response is the gold answer, up to case, punctuation, articles and spacing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from swarm.tasks.example import Example
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.text import answer_part, normalise, statements

_gold = lru_cache(maxsize=65536)(normalise)


@dataclass(frozen=True)
class Exact(Scorer):
    """1 if the whole response, or what it last states as the answer, is a gold answer; else 0."""

    name: ClassVar[str] = "exact"

    def __call__(self, example: Example, text: str) -> float:
        golds = [_gold(gold) for gold in example.golds]
        text = answer_part(text)
        if normalise(text) in golds:
            return 1.0
        return float(normalise(next(statements(text), "")) in golds)

    def extract(self, example: Example, text: str) -> str | None:
        text = answer_part(text)
        return normalise(next(statements(text), text)) or None
