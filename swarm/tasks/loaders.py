"""Where records come from: JSONL and CSV files (plain or .gz) and Hugging Face data sets.

Every reader yields ``(where, record)``, one at a time; `where` is what an error calls the record.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarm.errors import MissingPackageError, TaskError
from swarm.json_lines import read_json_lines, read_lines
from swarm.tasks.fields import Record

HF = "hf:"
HF_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""What Hugging Face data sets call our splits, where the source does not say."""

Located = tuple[str, Record]


def read_source(source: str, split: str, folder: Path) -> Iterator[Located]:
    """The records of a file in `folder`, or of a data set ``hf:name[:config][@split]``."""
    if source.startswith(HF):
        return read_hf(source, split)
    path = folder / source
    plain = path.name.removesuffix(".gz")
    for suffix, read in {".jsonl": read_jsonl, ".csv": read_csv}.items():
        if plain.endswith(suffix):
            return read(path)
    raise TaskError(
        f"`{source}`: records are read from .jsonl and .csv files, or either with .gz, "
        "and from `hf:name`"
    )


def read_jsonl(path: Path) -> Iterator[Located]:
    """One JSON object a line; blank lines are skipped."""
    for number, record in read_json_lines(path, TaskError):
        yield f"`{path}:{number}`", record


def read_csv(path: Path) -> Iterator[Located]:
    """Comma-separated, the first line names the columns."""
    reader = csv.DictReader(read_lines(path, TaskError), strict=True)
    try:
        for record in reader:
            where = f"`{path}:{reader.line_num}`"
            # DictReader's names for what is over and what is missing
            if None in record or None in record.values():
                raise TaskError(f"{where}: a row must have {len(reader.fieldnames or ())} columns")
            yield where, record
    except csv.Error as error:
        line = reader.reader.line_num  # DictReader's own stays behind when a line fails
        raise TaskError(f"`{path}:{line}`: not valid CSV: {error}") from None


def read_hf(source: str, split: str) -> Iterator[Located]:
    """``hf:name[:config][@split]`` by Hugging Face's `datasets`, which must be installed.

    Without ``@split``, `dev` is the data set's ``validation``. ``@train[:100]`` works too.
    """
    try:
        import datasets
    except ImportError:
        raise MissingPackageError("datasets", "data", f"`{source}`") from None
    name, _, part = source.removeprefix(HF).partition("@")
    name, _, config = name.partition(":")
    part = part or HF_SPLITS[split]
    try:
        rows: Any = datasets.load_dataset(name, config or None, split=part)
    except Exception as error:  # the hub, the network, the data set's files: all name themselves
        problem = " ".join(str(error).split())
        raise TaskError(f"`{source}`: `{part}` can't be loaded: {problem}") from error
    for number, row in enumerate(rows, start=1):
        yield f"`{source}` row {number}", row
