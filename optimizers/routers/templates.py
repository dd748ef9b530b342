"""What many questions share word for word, such as instructions and worked examples, is set aside.

A short encoder reads the beginning of a text alone. Where that is the same for all questions of a
kind, it sees which kind a question is, and nothing of the question.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from swarm.optimizers.outcomes import Floats

SHORTEST = 50
"""Characters that a template has at least; what it has beyond a shorter one, too."""
FEWEST = 10
"""Questions that share it, at least;"""
SHARE = 0.02
"""and this share of them all."""


@dataclass(frozen=True)
class Templates:
    """What known questions begin with and end with, the longest first."""

    before: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def of(cls, questions: Sequence[str]) -> Self:
        texts = set(questions)
        least = max(FEWEST, round(SHARE * len(texts)))
        before = _shared(sorted(texts), least)
        after = (each[::-1] for each in _shared(sorted(text[::-1] for text in texts), least))
        return cls(_ordered(before), _ordered(after))

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        return cls(tuple(facts["before"]), tuple(facts["after"]))

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values."""
        return {"before": list(self.before), "after": list(self.after)}

    def split(self, question: str) -> tuple[str, int | None, int | None]:
        """What is the question's own, and the numbers of what stands before and after it.

        A question that is nothing but templates is its own.
        """
        first = next((i for i, each in enumerate(self.before) if question.startswith(each)), None)
        last = next((i for i, each in enumerate(self.after) if question.endswith(each)), None)
        start = 0 if first is None else len(self.before[first])
        stop = len(question) - (0 if last is None else len(self.after[last]))
        return question[start:stop].strip() or question, first, last

    def own(self, questions: Sequence[str]) -> list[str]:
        return [self.split(question)[0] for question in questions]

    def which(self, questions: Sequence[str]) -> Floats:
        """(n, before + after): 1 where a template is the question's."""
        table = np.zeros((len(questions), len(self.before) + len(self.after)))
        for row, question in enumerate(questions):
            _, first, last = self.split(question)
            if first is not None:
                table[row, first] = 1.0
            if last is not None:
                table[row, len(self.before) + last] = 1.0
        return table


def _ordered(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts), key=lambda text: (-len(text), text)))


def _shared(texts: Sequence[str], least: int) -> Iterator[str]:
    """What runs of `least` or more neighbours among sorted texts begin with."""
    alike = [_common(*pair) for pair in itertools.pairwise(texts)]
    # Runs that are still to be looked at, each known to share its first characters.
    runs = [(0, len(texts), 0)]
    while runs:
        first, last, known = runs.pop()
        start = first
        for stop in range(first + 1, last + 1):
            if stop < last and alike[stop - 1] >= known + SHORTEST:
                continue
            if stop - start >= least:
                length = min(alike[start : stop - 1])
                # No word is cut in two.
                cut = 1 + max(texts[start].rfind(space, 0, length) for space in " \n")
                if cut >= known + SHORTEST:
                    yield texts[start][:cut]
                runs.append((start, stop, length))
            start = stop


def _common(first: str, second: str) -> int:
    """How many characters two texts have in common before they differ."""
    shorter = min(len(first), len(second))
    low, high = 0, shorter
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
