"""A user's function as a scorer: ``(example, text) -> number in [0, 1]``."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from swarm.errors import TaskError
from swarm.tasks.example import Example
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.text import normalise


@dataclass(frozen=True)
class Function(Scorer):
    """Scores with `function`; `TaskError` where it raises, or what it returns is not in [0, 1]."""

    name: ClassVar[str] = "function"
    function: Callable[[Example, str], float]

    def __call__(self, example: Example, text: str) -> float:
        try:
            result = self.function(example, text)
        except Exception as error:  # whatever the user's function raises
            problem = f"{type(error).__name__}: {error}"
            raise TaskError(
                f"the scorer `{self.spec}` failed on example `{example.id}`: {problem}"
            ) from error
        try:
            score = math.nan if isinstance(result, str) else float(result)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not 0 <= score <= 1:
            raise TaskError(
                f"the scorer `{self.spec}` returned `{result!r}` for example `{example.id}`; "
                "it must return a number from 0 to 1"
            )
        return score

    def extract(self, example: Example, text: str) -> str | None:
        """The normalised text: what the function reads of it is not known."""
        return normalise(text) or None

    @property
    def spec(self) -> str:
        """The function as ``module:name``."""
        module = getattr(self.function, "__module__", "")
        return f"{module}:{getattr(self.function, '__qualname__', type(self.function).__name__)}"

    @property
    def identity(self) -> str:
        """The function's name and source, so that an edited function is another scorer."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):  # built in, typed at a prompt, or an object that is callable
            source = ""
        return f"{self.name} {self.spec} {hashlib.blake2b(source.encode()).hexdigest()}"
