"""A TOML file becomes a checked pydantic model; every problem becomes a one-line `ConfigError`.

Used for pools, tasks and jobs, so that all of them complain alike: file, key, value, rule, remedy.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from swarm.errors import ConfigError, did_you_mean


class Settings(BaseModel):
    """A part of a settings file: frozen, and no key may be there that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read the TOML file at `path` into `model`.

    Raises `ConfigError`, in one line, for a file that is missing or not TOML (with the line) and
    for the first key that `model` refuses. Unknown keys come before others: a misspelt key is both
    unknown and missing, and the misspelling is what the user can see.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        siblings = path.parent.glob("*.toml") if path.parent.is_dir() else []
        hint = did_you_mean(path.name, (sibling.name for sibling in siblings))
        raise ConfigError(f"`{path}`: no such file{hint}") from None
    except OSError as error:
        raise ConfigError(f"`{path}`: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"`{path}`: byte {error.start} is not UTF-8: TOML files are saved as UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"`{path}`: {_toml_problem(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"`{path}`: not valid TOML: nested too deeply") from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise settings_error(str(path), error, model) from None


def settings_error(source: str, error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """What `error` says about data from `source`, a file or what a user would call it: one line."""
    problems = [(*_locate(problem, model), problem) for problem in error.errors()]
    # A union reports what each of its members would refuse: the deepest is what was meant.
    key, known, problem = min(
        problems, key=lambda p: (p[2]["type"] != "extra_forbidden", -len(re.findall(r"[.[]", p[0])))
    )
    message = _describe(problem, key, known)
    others = {other for other, _, _ in problems if not key.startswith(other)}
    if others:
        message += f" (and {len(others)} more problem{'s' if len(others) > 1 else ''})"
    return ConfigError(f"`{source}`: {message}")


def _toml_problem(message: str) -> str:
    """``Expected … (at line 3, column 5)`` with the place first."""
    found = re.fullmatch(r"(.*) \(at (.*)\)", message, re.DOTALL)
    what, where = found.groups() if found else (message, "")
    what = " ".join(what.split())
    return f"{where}: not valid TOML: {what}" if where else f"not valid TOML: {what}"


def _describe(problem: ErrorDetails, key: str, known: list[str]) -> str:
    value = f"`{shorten(repr(problem['input']))}`"
    kind, context = problem["type"], problem.get("ctx", {})
    prefix = f"key `{key}`: " if key else ""
    if kind == "extra_forbidden":
        hint = did_you_mean(key.rpartition(".")[2], known)
        return f"{prefix}unknown{hint or '; known: ' + ', '.join(f'`{name}`' for name in known)}"
    if kind == "missing":
        return f"{prefix}missing: add `{key.rpartition('.')[2]} = …`"
    if kind in {"value_error", "assertion_error"}:
        return f"{prefix}{value}: {' '.join(str(context['error']).split())}"
    if kind in {"literal_error", "enum"}:
        choices = re.findall(r"'([^']*)'", context["expected"])
        hint = did_you_mean(str(problem["input"]), choices)
        return f"{prefix}{value} must be {context['expected']}{hint}"
    rule = re.sub(r"^\w+ (?:should (?=be|have|match)|is not (?=a valid))", "must ", problem["msg"])
    rule = re.sub(r"^must (?:be )?a valid (\w+).*", r"must be a valid \1", rule)
    return f"{prefix}{value} {rule}" if rule.startswith("must") else f"{prefix}{value}: {rule}"


def shorten(text: str, limit: int = 60) -> str:
    """`text` on one line, cut to `limit` characters, as messages quote it."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _locate(problem: ErrorDetails, model: type[BaseModel]) -> tuple[str, list[str]]:
    """The key as the user wrote it (``splits.dev``, ``experts[0].name``), and the keys known there.

    pydantic's location also names members of unions, which are nowhere in the file. Walking the
    model's annotations along the location tells them from keys.
    """
    key, known = "", list[str]()
    here: list[Any] = [model]
    in_union = False
    for part in problem["loc"]:
        if in_union or part == "[key]":
            in_union = False
            continue
        known = sorted({name for outer in here for name in _fields(outer)})
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
        here = [inner for outer in here for inner in _inside(outer, part)]
        in_union = len(here) > 1
    return key.removeprefix("."), known


def _fields(annotation: Any) -> dict[str, Any]:
    """The keys of a model and their annotations; nothing for whatever is not a model."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {}
    fields = annotation.model_fields.items()
    return {field.alias or name: field.annotation for name, field in fields}


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """What may stand under key or index `part` of something annotated so."""
    if fields := _fields(annotation):
        if part in fields:
            yield from _members(fields[part])
    elif arguments := get_args(annotation):
        yield from _members(arguments[-1] if isinstance(part, str) else arguments[0])


def _members(annotation: Any) -> Iterator[Any]:
    """`annotation`, or the members of it if it is a union, None apart."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not NoneType:
        yield annotation
