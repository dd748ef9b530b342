"""Files of one JSON object a line, plain or gzip: read one at a time, problems with their line."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarm.errors import InputError, did_you_mean
from swarm.settings_file import shorten


def read_json_lines(path: Path, error: type[InputError]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object); blank lines are skipped. Problems are raised as `error`."""
    for number, line in enumerate(read_lines(path, error), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as problem:
            raise error(
                f"`{path}:{number}`: not valid JSON: {problem.msg} (column {problem.colno})"
            ) from None
        except (ValueError, RecursionError) as problem:
            raise error(f"`{path}:{number}`: not valid JSON: {problem}") from None
        if not isinstance(record, dict):
            raise error(
                f"`{path}:{number}`: a line must be a JSON object, not `{shorten(line, 40)}`"
            )
        yield number, record


def read_lines(path: Path, error: type[InputError]) -> Iterator[str]:
    """The lines of a UTF-8 text, unpacked where its name ends in ``.gz``."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        siblings = path.parent.iterdir() if path.parent.is_dir() else []
        hint = did_you_mean(path.name, (sibling.name for sibling in siblings))
        raise error(f"`{path}`: no such file{hint}") from None
    except UnicodeDecodeError as problem:
        raise error(f"`{path}`: not UTF-8: {problem.reason}; save the file as UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise error(f"`{path}`: not a whole gzip file: {problem}") from None
    except OSError as problem:
        raise error(f"`{path}`: can't be read: {problem.strerror}") from None
