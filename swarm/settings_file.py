"""A TOML file becomes a checked pydantic model; every problem becomes a one-line `ConfigError`.

Used for pools, tasks and jobs, so that all of them complain alike: file, key, value, rule, remedy.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

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
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    key, known = _locate(first, model)
    message = _describe(first, key, known)
    # A union reports each of its members; those are one problem to the user.
    others = {_locate(problem, model)[0] for problem in problems} - {key}
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
    value = _shorten(problem["input"])
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
    rule = re.sub(r"^(Input|String|Value|List|Tuple|Dictionary) should ", "must ", problem["msg"])
    return f"{prefix}{value} {rule}" if rule.startswith("must") else f"{prefix}{value}: {rule}"


def _shorten(value: Any, limit: int = 60) -> str:
    text = " ".join(repr(value).split())
    return f"`{text if len(text) <= limit else text[: limit - 1] + '…'}`"


def _locate(problem: ErrorDetails, model: type[BaseModel]) -> tuple[str, list[str]]:
    """The key as the user wrote it (``splits.dev``, ``experts[0].name``), and the keys known there.

    pydantic's location also names members of unions, which are nowhere in the file: walking the
    model along the location tells them from keys.
    """
    key, here, known = "", [Any, model], list[str]()
    for part in problem["loc"]:
        inside = [model for model in here if _is_model(model)]
        known = sorted({name for model in inside for name in _fields(model)})
        if isinstance(part, int):
            key += f"[{part}]"
            here = [member for outer in here for member in _members(outer)]
        elif part in known:
            key += f".{part}"
            here = [
                member
                for model in inside
                if part in _fields(model)
                for member in _alternatives(_fields(model)[part])
            ]
        elif part is problem["loc"][-1] and problem["type"] == "extra_forbidden":
            key += f".{part}"
        elif any(_is_mapping(outer) for outer in here) and part != "[key]":
            key += f".{part}"
            here = [member for outer in here if _is_mapping(outer) for member in _members(outer)]
    return key.removeprefix("."), known


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _alternatives(annotation: Any) -> Iterator[Any]:
    """`annotation` itself, and what it is a union of."""
    yield annotation
    if not _is_mapping(annotation) and get_origin(annotation) not in {list, tuple, set, frozenset}:
        for member in get_args(annotation):
            yield from _alternatives(member)


def _members(annotation: Any) -> Iterator[Any]:
    """What the elements of a list, or the values of a mapping, may be."""
    if get_origin(annotation) is not None:
        members = get_args(annotation)[1:] if _is_mapping(annotation) else get_args(annotation)
        for member in members:
            yield from _alternatives(member)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)
