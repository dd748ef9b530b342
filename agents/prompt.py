"""Role, question and the predecessors' responses become the messages that an expert is asked with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Position(StrEnum):
    """Where an agent stands in its graph; the wording of its prompt follows from it."""

    FIRST = "first"
    """No predecessors: sees the question alone."""
    MIDDLE = "middle"
    """Has predecessors and successors."""
    LAST = "last"
    """The end node: its response is the system's answer."""


@dataclass(frozen=True)
class PromptStyle:
    """The wording of a user prompt.

    `openings` by position stand at the head, then one line a predecessor, then the question.
    `previous` knows ``{k}`` (from 1) and ``{response}``; `question` knows ``{question}``.
    """

    name: str
    openings: dict[Position, str]
    previous: str
    question: str

    def render(self, question: str, previous: tuple[str, ...], position: Position) -> str:
        """The prompt of one agent for one question."""
        parts = [self.openings[position]] if self.openings[position] else []
        parts += [
            self.previous.format(k=k, response=response)
            for k, response in enumerate(previous, start=1)
        ]
        parts.append(self.question.format(question=question))
        return "\n".join(parts)


COMPACT = PromptStyle(
    name="compact",
    openings={Position.FIRST: "", Position.MIDDLE: "", Position.LAST: ""},
    previous="{k}: {response}",
    question="Question: {question}\nAnswer:",
)
"""The fewest tokens, for models that were trained to be agents: the zoo's."""
