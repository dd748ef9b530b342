"""`Fields`: which keys of a record hold question, answer, id and choices."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from swarm.errors import TaskError, did_you_mean
from swarm.settings_file import Settings, shorten
from swarm.tasks.example import Example

Record = Mapping[str, Any]
"""One row of a file or data set, as it was read."""


class Fields(Settings):
    """The keys of a record; every other key goes to `Example.meta`."""

    question: str = "question"
    answer: str = "answer"
    """A text or number, or a list of them where several are accepted."""
    id: str = "id"
    """May be missing from the records: they are numbered then, from 1."""
    choices: str | tuple[str, ...] = "choices"
    """One key, which may be missing from the records, or a key a choice."""

    def example(self, record: Record, number: int, where: str) -> Example:
        """The example in the `number`-th record; `where` it was read is for the errors.

        Choices are a table of letters and texts, or a list, which is lettered from A. An integer
        answer to a list of choices is its position from 0, as in most published sets.
        """
        question = self._get(record, self.question, "question", where)
        if not isinstance(question, str) or not question.strip():
            raise TaskError(f"{where}: key `{self.question}`: the question must be a text")
        choices = self._choices(record, where)
        answer = self._get(record, self.answer, "answer", where)
        listed = not isinstance(record.get(str(self.choices)), Mapping)
        if choices and listed and type(answer) is int:
            if not 0 <= answer < len(choices):
                raise TaskError(
                    f"{where}: key `{self.answer}`: `{answer}` must be a position in the list of "
                    f"choices, 0 to {len(choices) - 1}"
                )
            answer = list(choices)[answer]
        taken = {self.question, self.answer, self.id, *self._choice_keys}
        given = record.get(self.id)
        return Example(
            question=question,
            answer=self._answer(answer, where),
            id=str(number if given is None else given),
            choices=choices,
            meta={key: value for key, value in record.items() if key not in taken},
        )

    @property
    def _choice_keys(self) -> tuple[str, ...]:
        return (self.choices,) if isinstance(self.choices, str) else self.choices

    def _get(self, record: Record, key: str, field: str, where: str) -> Any:
        if key in record:
            return record[key]
        known = [str(name) for name in record]
        hint = did_you_mean(key, known) or f" (keys there: {', '.join(known) or 'none'})"
        raise TaskError(f"{where}: no key `{key}`{hint}; say which it is in `fields.{field}`")

    def _answer(self, value: Any, where: str) -> str | tuple[str, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        golds = tuple(str(gold) for gold in values if isinstance(gold, str | int | float))
        if not golds or len(golds) < len(values) or not all(gold.strip() for gold in golds):
            raise TaskError(
                f"{where}: key `{self.answer}`: gold answer missing; it must be a text or number, "
                f"or a list of the accepted ones, not `{shorten(repr(value))}`"
            )
        return golds[0] if len(golds) == 1 else golds

    def _choices(self, record: Record, where: str) -> dict[str, str] | None:
        if isinstance(self.choices, tuple):
            value: Any = [self._get(record, key, "choices", where) for key in self.choices]
        else:
            value = record.get(self.choices)
        if value is None or value == [] or value == {}:
            return None
        if isinstance(value, Mapping) and set(value) == {"label", "text"}:  # ARC, CommonsenseQA
            choices = dict(zip(value["label"], value["text"], strict=False))
        elif isinstance(value, Mapping):
            choices = dict(value)
        elif isinstance(value, list | tuple) and len(value) <= len(ascii_uppercase):
            choices = dict(zip(ascii_uppercase, value, strict=False))
        else:
            choices = {}
        if not choices or not all(isinstance(text, str | int | float) for text in choices.values()):
            raise TaskError(
                f"{where}: key `{self.choices}`: choices must be a list of at most 26 texts, or a "
                f"table of letters and texts, not `{shorten(repr(value))}`"
            )
        return {str(letter): str(text) for letter, text in choices.items()}
