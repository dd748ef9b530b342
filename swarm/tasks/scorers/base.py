"""`Scorer`: how well a response answers an example."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar

from swarm.tasks.example import Example


@dataclass(frozen=True)
class Scorer(ABC):
    """Calls an example and a text to a number.

    The contract: a finite float in [0, 1] for every text, empty ones included, without raising; 1
    for the gold answer itself; always the same for the same example and text, from any thread.
    A scorer's dataclass fields are its options, and part of its identity.
    """

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, example: Example, text: str) -> float:
        """The score of `text`, in [0, 1]."""

    @abstractmethod
    def extract(self, example: Example, text: str) -> str | None:
        """The answer that `text` gives, in a form in which equal answers are equal strings.

        For voting and agreement between draws. None where the text gives no answer.
        """

    def check(self, example: Example) -> None:  # noqa: B027 - most scorers take every example
        """Raise `TaskError` where this scorer can't score `example`, whatever the response."""

    @property
    def identity(self) -> str:
        """What the score depends on, apart from example and text; part of a task's fingerprint."""
        return json.dumps([self.name, asdict(self)], sort_keys=True)
