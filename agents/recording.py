"""`Recording`: what models answered to known questions, and how well, as columns.

The format is one JSON object a line (``.jsonl`` or ``.jsonl.gz``):

- ``id``, ``benchmark``, ``question``; where known ``split``, ``gold``, ``choices``, ``domain``
- ``scores`` {model: number in [0, 1]}: what counts as the result of asking this model
- ``soft_scores`` {model: number}: probability of the right option where the model chose it, else 0
- ``answers`` {model: extracted answer or null}; ``responses`` {model: text}
- ``sample_answers`` {model: [the answers of several draws]}
- ``costs`` {model: USD of this call}; ``costs_est`` {model: USD, estimated}
- ``tokens`` {model: [read, written]}

Every other key is kept as it is. `Recording.load` reads it, `Recording.save` writes it.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swarm.agents.recorded_rows import Line, RecordedRow, as_record, read_rows
from swarm.agents.replies import Replies
from swarm.errors import ConfigError, InputError, SwarmError, did_you_mean
from swarm.settings_file import shorten

Array = NDArray[np.float64]
Models = Literal["union", "intersection"] | Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Recording:
    """Questions × models. n is the number of questions, m that of models."""

    rows: tuple[RecordedRow, ...]
    """n: the questions, and what was answered to them."""
    models: tuple[str, ...]
    """m names."""
    scores: Array
    """(n, m), in [0, 1]; NaN where a model was not asked."""
    soft_scores: Array
    """(n, m): a training signal only; NaN where not recorded."""
    costs: Array
    """(n, m), USD of one call; NaN where not recorded."""
    estimated: NDArray[np.bool_]
    """(n, m): whether the cost is an estimate."""
    tokens: Array
    """(n, m, 2), read and written; NaN where not recorded."""

    @classmethod
    def load(
        cls,
        source: str | Path | Iterable[str | Path],
        *,
        models: Models = None,
        scale: Mapping[str, float] | None = None,
    ) -> Recording:
        """A recording from a file, a folder (its ``.jsonl`` and ``.jsonl.gz`` files), or several.

        A question that is in several files, with one id, is one row with the models of them all.

        Args:
            models: which models become columns. None: all, and every question must have a score
                of each; ``"union"``: all, NaN where one was not asked; ``"intersection"``: those
                with a score for every question; or names, in this order.
            scale: benchmark → its highest score, where that is not 1; scores are divided by it.

        Raises:
            ConfigError: a file can't be read or breaks a rule (file, line, key, rule, remedy), an
                id is there twice for different questions or the same model, or models differ and
                `models` does not say what to do.
        """
        given = [source] if isinstance(source, str | Path) else list(source)
        lines: list[Line] = []
        for path in _files(given):
            before = len(lines)
            lines += read_rows(path, scale or {})
            if len(lines) == before:
                raise ConfigError(f"`{path}`: no rows: a recording must have a question")
        return _columns(_merged(lines), models)

    def save(self, path: str | Path) -> None:
        """Writes the recording to a file, packed if its name ends in ``.gz``; whole or not at all.

        What is read back equals this bit for bit, but for a model without any score.

        Raises:
            InputError: the name ends in neither ``.jsonl`` nor ``.jsonl.gz``.
            SwarmError: it can't be written; nothing is left behind.
        """
        path = Path(path)
        if not path.name.endswith(_ENDINGS):
            raise InputError(
                f"`{path}`: a recording is a .jsonl or .jsonl.gz file: name it so, e.g. "
                f"`{path.name}.jsonl.gz`"
            )
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with (
                unfinished.open("wb") as raw,
                # The same recording becomes the same bytes: no name and no time in the header.
                gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw as file,
            ):
                for record in self.records():
                    file.write(json.dumps(record).encode() + b"\n")
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise SwarmError(
                f"`{path}` can't be written ({error.strerror}): make room there or choose another "
                "place; nothing was left behind"
            ) from error

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines, as JSON objects."""
        known = np.isfinite(self.costs)
        for i, row in enumerate(self.rows):
            counts = self.tokens[i]
            yield as_record(
                row,
                {
                    "scores": self._table(self.scores[i]),
                    "soft_scores": self._table(self.soft_scores[i]),
                    "costs": self._table(self.costs[i], known[i] & ~self.estimated[i]),
                    "costs_est": self._table(self.costs[i], known[i] & self.estimated[i]),
                    "tokens": {
                        model: [int(count) for count in counts[k]]
                        for k, model in enumerate(self.models)
                        if np.isfinite(counts[k]).all()
                    },
                },
            )

    def _table(self, values: Array, where: NDArray[np.bool_] | None = None) -> dict[str, float]:
        where = np.isfinite(values) if where is None else where
        return {self.models[k]: float(values[k]) for k in np.flatnonzero(where)}

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        names = ", ".join(self.benchmarks)
        return f"Recording({len(self)} questions, {len(self.models)} models; {shorten(names)})"

    @functools.cached_property
    def digest(self) -> bytes:
        """32 bytes: all that is in it."""
        digest = hashlib.blake2b(digest_size=32)
        for record in self.records():
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        digest.update(json.dumps(self.models).encode())
        return digest.digest()

    @property
    def questions(self) -> tuple[str, ...]:
        """n: as recorded, without the choices that a row may have."""
        return tuple(row.question for row in self.rows)

    @property
    def prompts(self) -> tuple[str, ...]:
        """n: as an agent is asked them, with lettered choices."""
        return tuple(row.prompt for row in self.rows)

    @functools.cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """Their names, in order of appearance."""
        return tuple(dict.fromkeys(row.benchmark for row in self.rows))

    @functools.cached_property
    def repeats(self) -> tuple[tuple[int, ...], ...]:
        """The rows that ask the same (choices included), for every question that is there twice."""
        found: dict[str, list[int]] = {}
        for i, prompt in enumerate(self.prompts):
            found.setdefault(prompt, []).append(i)
        return tuple(tuple(rows) for rows in found.values() if len(rows) > 1)

    @functools.cached_property
    def replies(self) -> Replies:
        """What the models answer when they are asked again."""
        return Replies(self)

    def model(self, name: str) -> int:
        """The column of a model; `InputError` if there is none."""
        try:
            return self.models.index(name)
        except ValueError:
            hint = did_you_mean(name, self.models) or f": it has {_names(self.models)}"
            raise InputError(f"model `{name}` is not in the recording{hint}") from None

    def subset(
        self,
        *,
        benchmarks: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
        rows: ArrayLike | None = None,
    ) -> Recording:
        """Only some of it.

        Args:
            benchmarks: rows of these.
            models: columns of these, in this order. Texts of the others go, too.
            rows: their numbers, in this order, or a mask of n booleans.

        Raises:
            InputError: a name or number is not there, or nothing is left.
        """
        chosen = np.arange(len(self)) if rows is None else _numbers(rows, len(self))
        if benchmarks is not None:
            wanted = _list(benchmarks, "benchmarks")
            for name in wanted:
                if name not in self.benchmarks:
                    hint = did_you_mean(name, self.benchmarks)
                    known = hint or f": it has {_names(self.benchmarks)}"
                    raise InputError(f"benchmark `{name}` is not in the recording{known}")
            chosen = np.array([i for i in chosen if self.rows[i].benchmark in wanted], dtype=int)
        if not chosen.size:
            raise InputError("no rows are left: choose at least 1 question of the recording")
        kept = tuple(self.rows[i] for i in chosen)
        columns = list(range(len(self.models)))
        if models is not None:
            columns = [self.model(name) for name in dict.fromkeys(_list(models, "models"))]
            if not columns:
                raise InputError("no models are left: choose at least 1 of the recording")
            kept = tuple(_only(row, {self.models[k] for k in columns}) for row in kept)
        cut = np.ix_(chosen, np.array(columns))
        return Recording(
            rows=kept,
            models=tuple(self.models[k] for k in columns),
            scores=self.scores[cut],
            soft_scores=self.soft_scores[cut],
            costs=self.costs[cut],
            estimated=self.estimated[cut],
            tokens=self.tokens[cut],
        )

    def mean(self, values: ArrayLike, *, macro: bool = False) -> Any:
        """The mean of `values`, whose first axis is that of the questions; NaN is left out.

        Args:
            macro: the mean of each benchmark's mean, not of all questions.
        """
        array = np.asarray(values, dtype=np.float64)
        if not macro:
            return _mean(array)
        names = np.array([row.benchmark for row in self.rows])
        return _mean(np.array([_mean(array[names == name]) for name in self.benchmarks]))

    def means(self, *, macro: bool = False) -> dict[str, float]:
        """Model → its mean score over the questions that it was asked; see `mean`."""
        found: Array = self.mean(self.scores, macro=macro)
        return {model: float(score) for model, score in zip(self.models, found, strict=True)}

    def oracle(self, *, macro: bool = False) -> float:
        """The mean score of the best model for each question; see `mean`."""
        asked = np.isfinite(self.scores)
        best = np.where(asked, self.scores, -1.0).max(axis=1)
        return float(self.mean(np.where(asked.any(axis=1), best, np.nan), macro=macro))

    def random(self, *, macro: bool = False) -> float:
        """The score to expect of a model drawn at random for each question; see `mean`."""
        return float(self.mean(_mean(self.scores.T), macro=macro))

    def best_single(self, *, macro: bool = False) -> tuple[str, float]:
        """The model of the highest mean score, the first of several, and that score; see `mean`.

        Raises:
            InputError: no model was asked every question. (Means over different ones say nothing.)
        """
        everywhere = np.isfinite(self.scores).all(axis=0)
        if not everywhere.any():
            raise InputError(
                "no model was asked every question, so none is the best: take the benchmarks that "
                'have models in common (`subset`), or load with `models="intersection"`'
            )
        means = np.where(everywhere, self.mean(self.scores, macro=macro), -1.0)
        best = int(np.argmax(means))
        return self.models[best], float(means[best])


_ENDINGS = (".jsonl", ".jsonl.gz")


def _files(sources: Sequence[str | Path]) -> list[Path]:
    if not sources:
        raise InputError("no file is given: a recording is loaded from at least one")
    files: list[Path] = []
    for path in map(Path, sources):
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.name.endswith(_ENDINGS))
            if not found:
                raise ConfigError(f"`{path}`: the folder must hold .jsonl or .jsonl.gz files")
            files += found
        elif path.name.endswith(_ENDINGS):
            files.append(path)
        else:
            raise ConfigError(f"`{path}`: a recording is a .jsonl or .jsonl.gz file, or a folder")
    return files


def _merged(lines: Sequence[Line]) -> list[Line]:
    """One line a question: what several files say of one is put together.

    Raises:
        ConfigError: an id is there twice for different questions, or for the same models.
    """
    found: dict[str, Line] = {}
    for line in lines:
        other = found.setdefault(line.row.id, line)
        if other is not line:
            found[line.row.id] = _together(other, line)
    return list(found.values())


def _together(one: Line, other: Line) -> Line:
    where = f"{other.where}: key `id`: `{other.row.id}` is also at {one.where}"
    first, second = one.row, other.row
    if (first.benchmark, first.prompt) != (second.benchmark, second.prompt):
        raise ConfigError(
            f"{where}, with another question: ids must be unique in a recording: rename one, or "
            "leave a file out"
        )
    both = one.numbers["scores"].keys() & other.numbers["scores"].keys()
    if both:
        raise ConfigError(
            f"{where}, with a score of `{min(both)}`, too: a model may answer a question once: "
            "take it out of one, or leave a file out"
        )
    row = replace(
        first,
        gold=second.gold if first.gold is None else first.gold,
        domain=second.domain if first.domain is None else first.domain,
        answers={**first.answers, **second.answers},
        responses={**first.responses, **second.responses},
        sample_answers={**first.sample_answers, **second.sample_answers},
        meta={**second.meta, **first.meta},
    )
    keys = dict.fromkeys((*one.numbers, *other.numbers))
    numbers = {key: {**one.numbers.get(key, {}), **other.numbers.get(key, {})} for key in keys}
    return Line(one.where, row, numbers)


def _columns(lines: Sequence[Line], wanted: Models) -> Recording:
    rows = tuple(line.row for line in lines)
    scores = [line.numbers["scores"] for line in lines]
    everyone = tuple(dict.fromkeys(model for table in scores for model in table))
    if wanted is None or wanted == "union":
        models = everyone
        short = [line for line in lines if len(line.numbers["scores"]) < len(models)]
        if wanted is None and short:
            missing = next(name for name in models if name not in short[0].numbers["scores"])
            raise ConfigError(
                f"{short[0].where}: key `scores`: `{missing}` is missing, which other rows have: "
                'say which models are meant: `models="union"` (all, as far as recorded), '
                '`"intersection"` (those that every question has), or their names'
            )
    elif wanted == "intersection":
        models = tuple(name for name in everyone if all(name in table for table in scores))
        if not models:
            raise ConfigError(
                f'`models="intersection"`: no model has a score for each of {len(rows)} '
                'questions: give `models="union"`, or load fewer files'
            )
    else:
        models = tuple(dict.fromkeys(_list(wanted, "models")))
        for name in models:
            if name not in everyone:
                hint = did_you_mean(name, everyone) or f": they have {_names(everyone)}"
                raise ConfigError(f"`models`: `{name}` is in none of the files{hint}")
    if models != everyone:
        kept = set(models)
        rows = tuple(_only(row, kept) for row in rows)

    def column(key: str) -> Array:
        tables = [line.numbers.get(key) for line in lines]
        found = np.full((len(rows), len(models)), np.nan)
        for i, table in enumerate(tables):
            if table:
                found[i] = [table.get(name, math.nan) for name in models]
        return found

    costs, estimates = column("costs"), column("costs_est")
    estimated = np.isnan(costs) & np.isfinite(estimates)
    tokens = np.full((len(rows), len(models), 2), np.nan)
    for i, line in enumerate(lines):
        if counts := line.numbers.get("tokens"):
            tokens[i] = [counts.get(name, (math.nan, math.nan)) for name in models]
    return Recording(
        rows=rows,
        models=models,
        scores=column("scores"),
        soft_scores=column("soft_scores"),
        costs=np.where(estimated, estimates, costs),
        estimated=estimated,
        tokens=tokens,
    )


def _only(row: RecordedRow, models: set[str]) -> RecordedRow:
    """`row` without the texts of other models."""
    return replace(
        row,
        answers={name: text for name, text in row.answers.items() if name in models},
        responses={name: text for name, text in row.responses.items() if name in models},
        sample_answers={name: d for name, d in row.sample_answers.items() if name in models},
    )


def _mean(values: Array) -> Any:
    """Over the first axis, without what is NaN; NaN where nothing else is there."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _numbers(rows: ArrayLike, n: int) -> NDArray[np.int_]:
    array = np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (n,):
            raise InputError(f"`rows` is a mask of shape {array.shape}: it must be ({n},)")
        return np.flatnonzero(array)
    array = array.astype(int) if array.size == 0 else array
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"`rows` must be numbers of rows, or a mask, not `{shorten(repr(rows))}`")
    if array.size and not (array.min() >= 0 and array.max() < n):
        raise InputError(f"`rows` has numbers that are not from 0 to {n - 1}")
    if len(np.unique(array)) < array.size:
        raise InputError("`rows` has a number twice: a question may be there once")
    return array.astype(int)


def _list(names: Iterable[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"`{what}` is the text `{names}`: give a list, such as [`{names}`]")
    return list(names)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
