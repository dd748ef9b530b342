"""A task of recorded questions, whose scorer gives the score that was recorded for an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from swarm.agents.recorded_rows import RecordedRow
from swarm.agents.recording import Recording
from swarm.agents.replies import Asked, mark, read_mark
from swarm.errors import TaskError
from swarm.tasks.example import Example
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.choice import Choice
from swarm.tasks.scorers.exact import Exact


@dataclass(frozen=True, repr=False)
class RecordedScore(Scorer):
    """The score that was recorded, in the order of what a text tells:

    1. the score that it ends with (`swarm.agents.replies`);
    2. the score of the models that gave this text;
    3. the score of the models that gave this answer, where all of them have the same;
    4. what another scorer says by the gold answer; 0 where none is recorded.

    So a recorded expert alone scores what was recorded, and a vote over recorded experts what the
    winner's answer did.
    """

    name: ClassVar[str] = "recorded"
    recordings: tuple[Recording, ...] = field(hash=False)
    other: Scorer | None = None
    """For texts that nobody gave; None: `choice` where there are choices, else `exact`."""

    def __call__(self, example: Example, text: str) -> float:
        if text == example.answer == mark(1.0):
            return 1.0
        bare, score = read_mark(text)
        if score is not None:
            return score
        asked = self._asked(example)
        if asked is not None:
            if bare in asked.scores:
                return asked.scores[bare]
            same = {
                asked.scores.get(reply) for reply, given in asked.answers.items() if given == bare
            }
            if len(same) == 1 and (known := same.pop()) is not None:
                return known
        if mark(1.0) in example.golds:
            return 0.0
        return self._by_gold(example)(example, bare)

    def extract(self, example: Example, text: str) -> str | None:
        """The answer that was recorded for this text, else what the other scorer reads of it."""
        bare, score = read_mark(text)
        asked = self._asked(example)
        if asked is not None:
            if bare in asked.answers:
                return asked.answers[bare]
            if bare in asked.answers.values():
                return bare
        if score is not None and not bare:
            return None
        return self._by_gold(example).extract(example, bare)

    @property
    def identity(self) -> str:
        digests = [recording.digest.hex() for recording in self.recordings]
        return json.dumps([self.name, digests, self.other and self.other.identity])

    def _by_gold(self, example: Example) -> Scorer:
        return self.other or (Choice() if example.choices else Exact())

    def _asked(self, example: Example) -> Asked | None:
        for recording in self.recordings:
            asked = recording.replies.to(example.prompt)
            if asked is not None:
                return asked
        return None


def recorded_example(row: RecordedRow) -> Example:
    """A row as a task has it. Where no gold answer is recorded, it is the mark of a full score."""
    tags = {"benchmark": row.benchmark, "domain": row.domain, "source_split": row.split}
    return Example(
        question=row.question,
        answer=mark(1.0) if row.gold is None else row.gold,
        id=row.id,
        choices=row.choices,
        meta={**row.meta, **{key: value for key, value in tags.items() if value}},
    )


def splits_of(recording: Recording | Mapping[str, Recording], split: str) -> dict[str, Recording]:
    """Split → recording; `TaskError` where there is none."""
    splits = {split: recording} if isinstance(recording, Recording) else dict(recording)
    for name, each in splits.items():
        if not isinstance(each, Recording):
            raise TaskError(f"split `{name}` must be a `Recording`, not `{type(each).__name__}`")
    return splits
