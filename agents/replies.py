"""What a recorded model answers when it is asked again, and what that answer scores.

A reply is the model's text where it is recorded, else the answer that was read from it, else the
most frequent of its drawn answers. Where none of these is recorded, or another model gave the same
text and got another score for it, the score itself is written on a last line of its own::

    [recorded score 0.7]

Rows that ask the same (`Recording.repeats`) can't be told apart by what is asked. They are one
question here: it has the first row's reply, and the mean of their scores, so that a mean over all
rows comes out as recorded.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swarm.agents.prompt import STYLES, Position, PromptStyle

if TYPE_CHECKING:
    from swarm.agents.recorded_rows import RecordedRow
    from swarm.agents.recording import Recording

_MARK = re.compile(r"(?:\n|\A)\[recorded score ([0-9.e+-]+)\]\s*\Z")


def mark(score: float) -> str:
    """A score as a text: see the top of this module."""
    return f"[recorded score {score!r}]"


def read_mark(text: str) -> tuple[str, float | None]:
    """`text` without a score at its end, and the score."""
    # Most texts have none, and are long.
    found = _MARK.search(text) if "[recorded score " in text[-64:] else None
    if found is None:
        return text, None
    try:
        score = float(found[1])
    except ValueError:
        return text, None
    return (text[: found.start()], score) if 0 <= score <= 1 else (text, None)


class Reply(NamedTuple):
    """What one model answers to one question."""

    text: str
    """With the score at its end where the text does not tell it."""
    score: float
    row: int
    """Whose text it is."""


class Asked(NamedTuple):
    """One question as it can be asked: its rows, and what every model answers."""

    rows: tuple[int, ...]
    replies: Mapping[int, Reply]
    """By the models' columns; a model that was never asked is missing."""
    scores: Mapping[str, float]
    """Reply without its mark → score, where all who gave it have the same."""
    answers: Mapping[str, str | None]
    """Reply without its mark → the answer that was read from it, where that is recorded."""


class Replies:
    """All replies of a recording, by what is asked."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        by_prompt: dict[str, list[int]] = {}
        by_question: dict[str, set[str]] = {}
        for i, row in enumerate(recording.rows):
            by_prompt.setdefault(row.prompt, []).append(i)
            by_question.setdefault(row.question, set()).add(row.prompt)
        # Without its choices a question is known, too, if that leaves no doubt which it is.
        self._prompts = {prompt: prompt for prompt in by_prompt}
        for question, prompts in by_question.items():
            if len(prompts) == 1:
                self._prompts.setdefault(question, *prompts)
        self._rows = {prompt: tuple(rows) for prompt, rows in by_prompt.items()}
        self._asked: dict[str, Asked] = {}

    def __contains__(self, question: object) -> bool:
        return question in self._prompts

    def to(self, question: str) -> Asked | None:
        """What is answered to a question, with its choices or without; None: it is not there."""
        prompt = self._prompts.get(question)
        if prompt is None:
            return None
        if prompt not in self._asked:
            self._asked[prompt] = self._ask(self._rows[prompt])
        return self._asked[prompt]

    def _ask(self, rows: tuple[int, ...]) -> Asked:
        models, every = self._recording.models, self._recording.rows
        columns = list(zip(*self._recording.scores[list(rows)].tolist(), strict=True))
        texts: dict[int, tuple[str | None, float, int]] = {}
        values: dict[str, set[float]] = {}
        answers: dict[str, str | None] = {}
        for k, model in enumerate(models):
            known = [
                (i, score) for i, score in zip(rows, columns[k], strict=True) if score == score
            ]
            if not known:
                continue
            i = known[0][0]
            row = every[i]
            text = _text(row, model)
            score = math.fsum(score for _, score in known) / len(known)
            texts[k] = (text, score, i)
            if text is not None:
                values.setdefault(text, set()).add(score)
                if model in row.answers:
                    answers[text] = row.answers[model]
        replies = {}
        for k, (text, score, i) in texts.items():
            if text is None:
                text = mark(score)
            elif len(values[text]) > 1 or read_mark(text)[1] is not None:
                text = f"{text}\n{mark(score)}"
            replies[k] = Reply(text, score, i)
        told = {text: min(found) for text, found in values.items() if len(found) == 1}
        return Asked(rows, replies, told, answers)


def _text(row: RecordedRow, model: str) -> str | None:
    if model in row.responses:
        return row.responses[model]
    if model in row.answers:
        return row.answers[model] or ""
    if model in row.sample_answers:
        [(answer, _)] = Counter(row.sample_answers[model]).most_common(1)
        return answer or ""
    return None


def find_question(content: str, own: PromptStyle, known: Replies) -> str | None:
    """The known question that a prompt asks, and nothing else; None: there is none.

    A prompt is the whole of a lone agent's, in the expert's `own` style, or the question alone, or
    a lone agent's in another style. Nothing is searched for inside it: a question may hold another.
    """
    styles = [own, None, *(style for style in STYLES.values() if style is not own)]
    for style in styles:
        head, tail = _around(style) if style is not None else ("", "")
        if content.startswith(head) and content.endswith(tail):
            question = content[len(head) : len(content) - len(tail)]
            if question in known:
                return question
    return None


def with_responses(content: str, known: Replies) -> bool:
    """Whether a prompt that has no known question for its whole has one after others' responses."""
    for style in STYLES.values():
        head, tail = style.question.format(question="\0").split("\0")
        if not content.endswith(tail):
            continue
        body = content[: len(content) - len(tail)]
        at = body.find("\n" + head)
        while at >= 0:
            if body[at + 1 + len(head) :] in known:
                return True
            at = body.find("\n" + head, at + 1)
    return False


@lru_cache
def _around(style: PromptStyle) -> tuple[str, str]:
    """What a lone agent's prompt has before and after its question."""
    head, _, tail = style.render("\0", (), Position.FIRST).partition("\0")
    return head, tail


def drawn(row: RecordedRow, model: str, seed: int) -> Sequence[str | None]:
    """The answers of several draws: as recorded, or for another seed than 0 in another order."""
    draws = row.sample_answers.get(model, ())
    if seed == 0 or len(draws) < 2:
        return draws
    # Any whole number may be a seed; numpy takes none below 0.
    told = f"{seed}/{row.id}".encode("utf-8", "surrogatepass")
    rng = np.random.default_rng(list(hashlib.blake2b(told, digest_size=16).digest()))
    return [draws[i] for i in rng.permutation(len(draws))]
