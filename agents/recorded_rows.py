"""One line of a recording: a question, and what each model answered, read strictly and written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from swarm.agents.prompt import with_choices
from swarm.errors import ConfigError, did_you_mean
from swarm.json_lines import read_json_lines
from swarm.settings_file import shorten

Numbers = Mapping[str, Any]
"""Model → number, or two of them."""

NUMBERS = ("scores", "soft_scores", "costs", "costs_est", "tokens")
TEXTS = ("answers", "responses", "sample_answers")
PLAIN = ("id", "benchmark", "split", "question", "gold", "choices", "domain")
KEYS = (*PLAIN, *NUMBERS, *TEXTS)


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """One question and the texts that models answered; numbers are columns of `Recording`."""

    id: str
    """Unique in its recording."""
    benchmark: str
    split: str
    """As the source calls it; an empty text where it does not say."""
    question: str
    gold: str | tuple[str, ...] | None = None
    """The right answer, or several; None where it is not recorded."""
    choices: Mapping[str, str] | None = None
    """Letter → text."""
    domain: str | None = None
    answers: Mapping[str, str | None] = field(default_factory=dict)
    """Model → the answer that was read from its text; None: none could be."""
    responses: Mapping[str, str] = field(default_factory=dict)
    """Model → its text."""
    sample_answers: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Model → the answers of several draws."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Every other key of the line."""

    @property
    def prompt(self) -> str:
        """The question as an agent is asked it: with its lettered choices, where there are any."""
        return with_choices(self.question, self.choices)


class Line(NamedTuple):
    """A row with the numbers that came with it."""

    where: str
    """What an error calls it: file and line."""
    row: RecordedRow
    numbers: Mapping[str, Numbers]
    """By key: see `NUMBERS`."""


def read_rows(path: Path, scale: Mapping[str, float]) -> Iterator[Line]:
    """The lines of a file; scores are divided by what `scale` says of their benchmark.

    Raises:
        ConfigError: the file can't be read, or a line breaks a rule.
    """
    for number, record in read_json_lines(path, ConfigError):
        yield read_record(f"`{path}:{number}`", record, scale)


def read_record(where: str, record: Mapping[str, Any], scale: Mapping[str, float]) -> Line:
    """One line; `where` it was read is for the errors. Raises `ConfigError`."""
    benchmark = _text(where, record, "benchmark")
    numbers = {key: _table(where, key, record[key]) for key in NUMBERS if key in record}
    texts = {key: _table(where, key, record[key]) for key in TEXTS if key in record}
    if not numbers.get("scores"):
        raise _missing(where, record, "scores", "must be an object of models and their scores")
    _check_models(where, numbers["scores"], {**numbers, **texts})
    numbers["scores"] = _scores(where, numbers["scores"], benchmark, scale)
    _check_numbers(where, numbers)
    _check_texts(where, texts)
    samples = texts.get("sample_answers", {})
    row = RecordedRow(
        id=_id(where, record),
        benchmark=benchmark,
        split=_optional_text(where, record, "split") or "",
        question=_text(where, record, "question"),
        gold=_gold(where, record.get("gold")),
        choices=_choices(where, record.get("choices")),
        domain=_optional_text(where, record, "domain"),
        answers=texts.get("answers", {}),
        responses=texts.get("responses", {}),
        sample_answers={model: tuple(draws) for model, draws in samples.items()},
        meta=_meta(record),
    )
    return Line(where, row, numbers)


def _id(where: str, record: Mapping[str, Any]) -> str:
    value = record.get("id")
    if type(value) is int:
        return str(value)
    return _text(where, record, "id")


def _text(where: str, record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _missing(where, record, key, "must be a text that is not blank")
    return value


def _optional_text(where: str, record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise _wrong(where, key, value, "must be a text: write it in quotes, or take it out")
    return value


def _gold(where: str, value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    golds = value if isinstance(value, list) else [value]
    if not golds or not all(type(gold) in (str, int, float) for gold in golds):
        rule = "must be a text or number, or a list of the accepted ones, or be left out"
        raise _wrong(where, "gold", value, rule)
    texts = tuple(map(str, golds))
    return texts[0] if len(texts) == 1 else texts


def _choices(where: str, value: Any) -> dict[str, str] | None:
    # Some sources wrote theirs down as Python code: that is no data, and goes to `meta` as it is.
    if value is None or value == [] or value == {} or isinstance(value, str):
        return None
    choices = value
    if isinstance(value, list) and len(value) <= len(ascii_uppercase):
        choices = dict(zip(ascii_uppercase, value, strict=False))
    if not isinstance(choices, dict) or not all(type(text) is str for text in choices.values()):
        rule = "must be an object of letters and texts, or a list of at most 26 texts"
        raise _wrong(where, "choices", value, rule)
    return choices


def _meta(record: Mapping[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in record.items() if key not in KEYS}
    if isinstance(record.get("choices"), str):
        meta["choices"] = record["choices"]
    return meta


def _table(where: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, key, value, 'must be an object, such as {"a-model": …}')
    if "" in value:
        raise ConfigError(f'{where}: key `{key}`: a model is called "": give it a name')
    return value


def _check_models(where: str, scores: Numbers, tables: Mapping[str, Numbers]) -> None:
    for key, table in tables.items():
        if not table.keys() <= scores.keys():
            model = next(model for model in table if model not in scores)
            raise ConfigError(
                f"{where}: key `{key}`: `{model}` has no score{did_you_mean(model, scores)}: "
                "every model must be in `scores`: add it there, or take it out here"
            )


def _scores(
    where: str, scores: Numbers, benchmark: str, scale: Mapping[str, float]
) -> dict[str, float]:
    most = scale.get(benchmark, 1)
    if set(map(type, scores.values())) <= _NUMBER and all(0 <= s <= most for s in scores.values()):
        return dict(scores) if most == 1 else {model: s / most for model, s in scores.items()}
    for model, score in scores.items():
        if score is None:
            rule = "a model that was not asked is left out, one that gave no answer scores 0"
            raise _wrong(where, f"scores.{model}", score, rule)
        if type(score) not in _NUMBER or not 0 <= score <= most:
            rule = f"must be a number from 0 to {most:g}"
            if type(score) in _NUMBER and score > most:
                highest = math.ceil(score) if math.isfinite(score) else "…"
                rule += (
                    f": if scores of `{benchmark}` go higher, say how high: "
                    f'scale={{"{benchmark}": {highest}}}, `--scale {benchmark}={highest}`'
                )
            raise _wrong(where, f"scores.{model}", score, rule)
    raise AssertionError("one of them is wrong")


_NUMBER = {int, float}


def _check_numbers(where: str, numbers: Mapping[str, Numbers]) -> None:
    for key, top, rule in (
        ("soft_scores", 1.0, "must be a number from 0 to 1: write a probability, or take it out"),
        ("costs", math.inf, "must be USD, 0 or more: take out what is not known"),
        ("costs_est", math.inf, "must be USD, 0 or more: take out what is not known"),
    ):
        for model, value in numbers.get(key, {}).items():
            if type(value) not in _NUMBER or not 0 <= value <= top or value == math.inf:
                raise _wrong(where, f"{key}.{model}", value, rule)
    for model, value in numbers.get("tokens", {}).items():
        two = isinstance(value, list) and len(value) == 2
        if not two or not all(type(count) is int and count >= 0 for count in value):
            rule = "must be two whole numbers, tokens read and written: take out what is not known"
            raise _wrong(where, f"tokens.{model}", value, rule)


def _check_texts(where: str, texts: Mapping[str, Mapping[str, Any]]) -> None:
    if not set(map(type, texts.get("responses", {}).values())) <= {str}:
        rule = "must be a text: leave out a model whose text is not known"
        raise _first_wrong(where, "responses", texts, rule, {str})
    if not set(map(type, texts.get("answers", {}).values())) <= _TEXT:
        rule = "must be a text, or null where none could be read"
        raise _first_wrong(where, "answers", texts, rule, _TEXT)
    for model, draws in texts.get("sample_answers", {}).items():
        if not isinstance(draws, list) or not draws or not set(map(type, draws)) <= _TEXT:
            rule = "must be a list of texts (null where none could be read): leave out an empty one"
            raise _wrong(where, f"sample_answers.{model}", draws, rule)


_TEXT: set[type] = {str, type(None)}


def _first_wrong(
    where: str, key: str, texts: Mapping[str, Mapping[str, Any]], rule: str, types: set[type]
) -> ConfigError:
    model, value = next(item for item in texts[key].items() if type(item[1]) not in types)
    return _wrong(where, f"{key}.{model}", value, rule)


def _wrong(where: str, key: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"{where}: key `{key}`: `{shorten(repr(value))}` {rule}")


def _missing(where: str, record: Mapping[str, Any], key: str, rule: str) -> ConfigError:
    if key in record:
        return _wrong(where, key, record[key], rule)
    hint = did_you_mean(key, [name for name in record if name not in KEYS])
    return ConfigError(f"{where}: no key `{key}`{hint}: it {rule}: add it")


def as_record(row: RecordedRow, numbers: Mapping[str, Numbers]) -> dict[str, Any]:
    """The line of `row`: a JSON object that `read_rows` reads back the same."""
    optional = {"gold": row.gold, "choices": row.choices, "domain": row.domain}
    texts: Iterable[tuple[str, Mapping[str, Any]]] = (
        ("answers", row.answers),
        ("responses", row.responses),
        ("sample_answers", row.sample_answers),
    )
    return {
        "id": row.id,
        "benchmark": row.benchmark,
        "split": row.split,
        "question": row.question,
        **{key: value for key, value in optional.items() if value is not None},
        **{key: table for key, table in numbers.items() if table},
        **{key: dict(table) for key, table in texts if table},
        **row.meta,
    }
