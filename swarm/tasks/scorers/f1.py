"""`f1`: how many words response and gold answer share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from swarm.tasks.example import Example
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.text import answer_part, normalise


@lru_cache(maxsize=65536)
def _gold(gold: str) -> tuple[str, ...]:
    return tuple(normalise(gold).split())


@dataclass(frozen=True)
class F1(Scorer):
    """The harmonic mean of precision and recall over words, for the gold answer that fits best.

    Words are those of SQuAD's evaluation, each counted as often as it stands on both sides. The
    whole response counts (after ``</think>``).
    """

    name: ClassVar[str] = "f1"

    def __call__(self, example: Example, text: str) -> float:
        words = normalise(answer_part(text)).split()
        return max(_f1(words, _gold(gold)) for gold in example.golds)

    def extract(self, example: Example, text: str) -> str | None:
        return normalise(answer_part(text)) or None


def _f1(words: list[str], gold: tuple[str, ...]) -> float:
    common = (Counter(words) & Counter(gold)).total()
    return 2 * common / (len(words) + len(gold)) if common else 0.0
