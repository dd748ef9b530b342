"""`Task`: examples in splits, and the scorer that says how well one is answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from swarm.errors import ConfigError, TaskError, did_you_mean
from swarm.settings_file import Settings, read_settings, settings_error, shorten
from swarm.tasks.example import Example
from swarm.tasks.fields import Fields, Record
from swarm.tasks.function import import_function
from swarm.tasks.loaders import read_source
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.registry import ScorerSpec, get_scorer

if TYPE_CHECKING:
    from swarm.agents.recording import Recording

SPLITS = ("train", "dev", "test")

Source = str | Path | Iterable[Record | Example]
"""A file, ``hf:name``, or records or examples themselves."""


@dataclass(frozen=True, eq=False)
class Task:
    """Checked when made: raises `TaskError` where splits, examples and scorer do not fit."""

    name: str
    splits: Mapping[str, tuple[Example, ...]]
    """`train`, `dev` and `test`, or some of them; none is empty and no question is in two."""
    scorer: Scorer

    def __post_init__(self) -> None:
        if not self.splits:
            raise TaskError(f"task `{self.name}` has no split; give one of {_names(SPLITS)}")
        for split, examples in self.splits.items():
            if split not in SPLITS:
                raise TaskError(
                    f"task `{self.name}`: split `{split}` unknown{did_you_mean(split, SPLITS)}; "
                    f"splits are {_names(SPLITS)}"
                )
            self._check_split(split, examples)
        self._check_overlap()

    @classmethod
    def load(cls, path: Path | str) -> Task:
        """The task that a TOML file describes; the files it names are relative to it.

        Raises `ConfigError` for the TOML file and `TaskError` for the records.
        """
        path = Path(path)
        settings = read_settings(path, _TaskFile)
        try:
            scorer = get_scorer(settings.scorer, path.parent)
        except TaskError as error:
            raise ConfigError(f"`{path}`: key `scorer`: {error}") from error
        try:
            record = import_function(settings.record, path.parent) if settings.record else None
        except TaskError as error:
            raise ConfigError(f"`{path}`: key `record`: {error}") from error
        splits = settings.splits.model_dump(exclude_none=True)
        if not splits:
            raise ConfigError(f"`{path}`: key `splits`: empty: give one of {_names(SPLITS)}")
        return cls.from_records(
            settings.name,
            scorer,
            fields=settings.fields,
            record=record,
            folder=path.parent,
            **splits,
        )

    @classmethod
    def from_records(
        cls,
        name: str,
        scorer: ScorerSpec,
        *,
        train: Source | None = None,
        dev: Source | None = None,
        test: Source | None = None,
        fields: Fields | Mapping[str, Any] | None = None,
        record: Callable[[Record], Example] | None = None,
        folder: Path | str = ".",
    ) -> Task:
        """A task from files, data sets, or any iterables of dicts or `Example`s.

        `fields` says which keys of a record are what; `record`, if given, makes the examples
        instead. Files are relative to `folder`.
        """
        folder = Path(folder)
        try:
            fields = Fields.model_validate(fields or {})
        except ValidationError as error:
            raise settings_error("fields", error, Fields) from None
        sources = {"train": train, "dev": dev, "test": test}
        return cls(
            name=name,
            splits={
                split: tuple(_examples(source, split, fields, record, folder))
                for split, source in sources.items()
                if source is not None
            },
            scorer=get_scorer(scorer, folder),
        )

    @classmethod
    def recorded(
        cls,
        recording: Recording | Mapping[str, Recording],
        *,
        split: str = "dev",
        name: str | None = None,
        scorer: Scorer | None = None,
    ) -> Task:
        """The questions of a recording, scored as they were recorded: see `RecordedScore`.

        For `Pool.recorded` of the same recording: its experts' mean scores are then the recorded
        ones. Examples have `benchmark`, `domain` and `source_split` in `meta`.

        Args:
            recording: one for `split`, or one a split, as in ``{"dev": …, "test": …}``.
            name: else the benchmarks' names.
            scorer: for texts that no recorded model gave: see `RecordedScore.other`.

        Raises:
            TaskError: see `Task`.
        """
        from swarm.tasks.recorded import RecordedScore, recorded_example, splits_of

        splits = splits_of(recording, split)
        names = dict.fromkeys(name for each in splits.values() for name in each.benchmarks)
        return cls(
            name=name or " ".join(names),
            splits={part: tuple(map(recorded_example, each.rows)) for part, each in splits.items()},
            scorer=RecordedScore(tuple(splits.values()), scorer),
        )

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of one split; raises `TaskError` for one that is not there."""
        if name not in self.splits:
            hint = did_you_mean(name, self.splits) or f"; it has {_names(self.splits)}"
            raise TaskError(f"task `{self.name}` has no split `{name}`{hint}")
        return self.splits[name]

    @property
    def train(self) -> tuple[Example, ...]:
        return self.split("train")

    @property
    def dev(self) -> tuple[Example, ...]:
        return self.split("dev")

    @property
    def test(self) -> tuple[Example, ...]:
        return self.split("test")

    def score(self, example: Example, text: str) -> float:
        """How well `text` answers `example`, in [0, 1]."""
        return self.scorer(example, text)

    def limit(
        self, *, train: int | None = None, dev: int | None = None, test: int | None = None
    ) -> Task:
        """The same task with only the first so many examples of each split that is named."""
        splits = dict(self.splits)
        for split, count in {"train": train, "dev": dev, "test": test}.items():
            if count is None:
                continue
            if count < 1:
                raise TaskError(f"`limit({split}={count})`: a split must keep at least 1 example")
            splits[split] = self.split(split)[:count]
        return replace(self, splits=splits)

    @cached_property
    def fingerprint(self) -> bytes:
        """32 bytes: equal where scorer and examples are equal, whatever file they came from."""
        digest = hashlib.blake2b(self.scorer.identity.encode(), digest_size=32)
        for split in sorted(self.splits):
            digest.update(f"\n{split} {len(self.splits[split])}\n".encode())
            for example in self.splits[split]:
                digest.update(self._content(split, example) + b"\n")
        return digest.digest()

    def _content(self, split: str, example: Example) -> bytes:
        choices = list(example.choices.items()) if example.choices else None
        parts = [example.id, example.question, example.golds, choices, example.meta]
        try:
            return json.dumps(parts, sort_keys=True).encode()
        except (TypeError, ValueError) as error:
            raise TaskError(
                f"task `{self.name}`, split `{split}`, example `{example.id}`: `meta` must hold "
                f"JSON values only, to be recorded: {error}"
            ) from None

    def _check_split(self, split: str, examples: tuple[Example, ...]) -> None:
        if not examples:
            raise TaskError(f"task `{self.name}`: split `{split}` is empty; remove it or fill it")
        seen = set[str]()
        for example in examples:
            where = f"task `{self.name}`, split `{split}`, example `{example.id}`"
            if example.id in seen:
                raise TaskError(f"{where}: the id is there twice; ids must be unique in a split")
            seen.add(example.id)
            if not example.golds or not all(gold.strip() for gold in example.golds):
                raise TaskError(f"{where}: gold answer missing; no response could score")
            try:
                self.scorer.check(example)
            except TaskError as error:
                raise TaskError(f"{where}: {error}") from None

    def _check_overlap(self) -> None:
        """A question in two splits would be tested on what was searched on."""
        seen: dict[object, tuple[str, Example]] = {}
        shared = []
        for split, examples in self.splits.items():
            for example in examples:
                # Choices belong to the question ("Which is true?"), their order does not.
                question = (example.question, frozenset((example.choices or {}).values()))
                first, other = seen.setdefault(question, (split, example))
                if first != split:
                    shared.append((first, other, split, example))
        if shared:
            first, other, split, example = shared[0]
            raise TaskError(
                f"task `{self.name}`: splits `{first}` and `{split}` share "
                f"{len(shared)} question{'s' if len(shared) > 1 else ''}, such as "
                f"`{shorten(example.question)}` (ids `{other.id}` and `{example.id}`); "
                f"remove them from one, or a score on `{split}` means nothing"
            )


class _Splits(Settings):
    train: str | None = None
    dev: str | None = None
    test: str | None = None


class _TaskFile(Settings):
    name: str
    scorer: str | dict[str, Any]
    splits: _Splits
    fields: Fields = Fields()
    record: str | None = None
    """A function from a record to an `Example`, as ``module:function`` or ``file.py:function``."""


def _examples(
    source: Source,
    split: str,
    fields: Fields,
    record: Callable[[Record], Example] | None,
    folder: Path,
) -> Iterator[Example]:
    located: Iterable[tuple[str, Record | Example]]
    if isinstance(source, str | Path):
        located = read_source(str(source), split, folder)
    else:
        located = ((f"split `{split}`, record {k}", item) for k, item in enumerate(source, start=1))
    for number, (where, item) in enumerate(located, start=1):
        if isinstance(item, Example):
            yield item
        elif record is not None:
            yield _convert(record, item, where)
        else:
            yield fields.example(item, number, where)


def _convert(function: Callable[[Record], Example], record: Record, where: str) -> Example:
    name = getattr(function, "__qualname__", repr(function))
    try:
        example = function(record)
    except Exception as error:  # whatever the user's function raises
        problem = f"{type(error).__name__}: {error}"
        raise TaskError(f"{where}: `{name}` failed on this record: {problem}") from error
    if not isinstance(example, Example):
        raise TaskError(f"{where}: `{name}` must return an `Example`, not `{example!r}`")
    return example


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
