"""Role, question and predecessors' responses become the messages that an expert is asked with."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat
from types import MappingProxyType

from swarm.agents.messages import Message, Messages, leaves
from swarm.agents.role import Role
from swarm.agents.shortening import Cuts, apply

WHOLE: Mapping[int, Cuts] = MappingProxyType({})
"""Nothing is cut."""


class Position(StrEnum):
    """Where an agent stands in its graph; the wording of its prompt follows from it."""

    FIRST = "first"
    """No predecessors: sees the question alone."""
    MIDDLE = "middle"
    """Has predecessors and successors."""
    LAST = "last"
    """The end node: its response is the system's answer."""

    @classmethod
    def of(cls, *, has_predecessors: bool, is_end: bool) -> Position:
        """A lone agent is `FIRST`: it has nothing but the question."""
        if not has_predecessors:
            return cls.FIRST
        return cls.LAST if is_end else cls.MIDDLE


@dataclass(frozen=True, eq=False)
class PromptStyle:
    """The wording of a prompt (Heterogeneous Swarms, arXiv 2502.04510, appendix on prompts).

    The user message is the opening for the agent's position, one line a predecessor, the question.
    """

    name: str
    openings: dict[Position, str]
    """By position; an empty one is left out."""
    previous: str
    """Knows ``{k}`` (from 1) and ``{response}``."""
    question: str
    """Knows ``{question}``."""
    with_role: bool = True
    """Whether the role's instructions go before it all, as the system message."""
    flatten: bool = False
    """Whether new-lines in responses become spaces, as in the paper's published code."""

    def render(self, question: str, previous: Sequence[str], position: Position) -> str:
        """The user message of one agent for one question."""
        previous = [text for [text] in self.responses([[text] for text in previous])]
        return self._template(len(previous), position) % (*previous, question)

    @functools.cache  # noqa: B019 - styles are few and live as long as the process
    def _template(self, predecessors: int, position: Position) -> str:
        """With a ``%s`` for every predecessor's response, and one for the question."""
        parts = [self.openings[position]] if self.openings[position] else []
        parts += [self.previous.format(k=k + 1, response="\0") for k in range(predecessors)]
        parts.append(self.question.format(question="\0"))
        return "\n".join(parts).replace("%", "%%").replace("\0", "%s")

    def messages(
        self,
        role: Role,
        position: Position,
        questions: Sequence[str],
        previous: Sequence[Sequence[str]],
        cuts: Mapping[int, Cuts] = WHOLE,
    ) -> list[Messages]:
        """The prompts of one agent for a column of questions.

        Args:
            previous: one column a predecessor, each as long as `questions`.
            cuts: position in the column → what is cut of the responses there.
        """
        previous = self.responses(previous)
        if cuts:
            columns = [list(responses) for responses in previous]
            for row, each in cuts.items():
                left = apply([responses[row] for responses in columns], each)
                for responses, text in zip(columns, left, strict=True):
                    responses[row] = text
            previous = columns
        template = self._template(len(previous), position)
        texts = [template % row for row in zip(*previous, questions, strict=True)]
        users = leaves(Message, repeat("user"), texts)
        if self.with_role and role.instructions:
            system = Message("system", role.instructions)
            return [(system, user) for user in users]
        return [(user,) for user in users]

    def responses(self, previous: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Predecessors' responses, as they are put into prompts: see `messages`. What a reasoning
        model thought before its answer is left out (Symbolic-MoE, arXiv 2503.05641)."""
        said = [_said(responses) for responses in previous]
        return [_flat(responses) for responses in said] if self.flatten else said


def with_choices(question: str, choices: Mapping[str, str] | None) -> str:
    """A question as an agent is asked it: with its lettered choices, where there are any."""
    if not choices:
        return question
    return "\n".join((question, *(f"{letter}. {text}" for letter, text in choices.items())))


THOUGHT = "</think>"
"""Ends what a reasoning model thinks aloud; its answer comes after it."""


def _said(texts: Sequence[str]) -> Sequence[str]:
    if not any(THOUGHT in text for text in texts):
        return texts
    return [text.rpartition(THOUGHT)[2].lstrip() for text in texts]


def _flat(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.splitlines()) if "\n" in text else text for text in texts]


CHAT = PromptStyle(
    name="chat",
    openings={
        Position.FIRST: "Work out an answer to the question below.",
        Position.MIDDLE: (
            "Others have already worked on the question below. Build on what is right in their "
            "responses and pass over what is wrong, then give your own response."
        ),
        Position.LAST: (
            "Others have already worked on the question below. Weigh their responses, pass over "
            "what is wrong, and give the final answer."
        ),
    },
    previous="Previous response {k}: {response}",
    question="Question: {question}",
)
"""For instruction-tuned models."""

COMPACT = PromptStyle(
    name="compact",
    openings={Position.FIRST: "", Position.MIDDLE: "", Position.LAST: ""},
    previous="{k}: {response}",
    question="Question: {question}\nAnswer:",
    with_role=False,
    flatten=True,
)
"""The fewest tokens, for models that were trained to be agents: the zoo's."""

STYLES = {style.name: style for style in (CHAT, COMPACT)}
