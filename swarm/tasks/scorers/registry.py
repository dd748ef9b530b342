"""The scorers by name, and what a user may give as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from swarm.errors import TaskError, did_you_mean
from swarm.tasks.example import Example
from swarm.tasks.function import import_function
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.choice import Choice
from swarm.tasks.scorers.exact import Exact
from swarm.tasks.scorers.f1 import F1
from swarm.tasks.scorers.function import Function
from swarm.tasks.scorers.number import Number

SCORERS: dict[str, type[Scorer]] = {
    scorer.name: scorer
    for scorer in (
        Exact,
        Choice,
        Number,
        F1,
    )
}

ScorerSpec = Scorer | str | Mapping[str, Any] | Callable[[Example, str], float]
"""A scorer, its name, ``{"name": …, options…}``, ``"module:function"``, or a function."""


def get_scorer(spec: ScorerSpec, folder: Path = Path()) -> Scorer:
    """The scorer that `spec` describes; ``file.py:function`` is looked for in `folder`.

    Raises `TaskError` for names and options that are unknown and for options out of range.
    """
    if isinstance(spec, Scorer):
        return spec
    if callable(spec):
        return Function(spec)
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise TaskError("a scorer with options needs its name: add `name = …`")
    if name not in SCORERS and ":" not in name:
        hint = did_you_mean(name, SCORERS)
        known = ", ".join(f"`{known}`" for known in SCORERS)
        raise TaskError(f"scorer `{name}` unknown{hint}; there are {known}, and `module:function`")
    fields = dataclasses.fields(SCORERS[name]) if name in SCORERS else ()
    for option in options:
        if option not in (known_options := [field.name for field in fields]):
            hint = did_you_mean(option, known_options)
            raise TaskError(f"scorer `{name}` has no option `{option}`{hint}")
    if name in SCORERS:
        return SCORERS[name](**options)
    return Function(import_function(name, folder))
