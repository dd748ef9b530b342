"""`Example`: one question with its gold answer, as loaders make it and scorers read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.agents.prompt import with_choices


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a task."""

    question: str
    answer: str | tuple[str, ...]
    """The gold answer, or several that are all accepted; of multiple choice, the letter."""
    id: str
    """Unique in its split."""
    choices: Mapping[str, str] | None = field(default=None, hash=False)
    """Letter to text, in the order shown."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Whatever else is known, such as domain, skill or steps: JSON values only."""

    @property
    def golds(self) -> tuple[str, ...]:
        """The accepted answers, always as a tuple."""
        return (self.answer,) if isinstance(self.answer, str) else self.answer

    @property
    def prompt(self) -> str:
        """The question as an agent is asked it: with its lettered choices, where there are any."""
        return with_choices(self.question, self.choices)
