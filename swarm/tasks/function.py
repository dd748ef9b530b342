"""A user's function, named in a settings file as ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from swarm.errors import TaskError, did_you_mean


def import_function(spec: str, folder: Path) -> Callable[..., Any]:
    """The function that `spec` names; a ``.py`` file is looked for in `folder`.

    Raises `TaskError` where the module or the function is not there, or the module fails on import.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise TaskError(f"`{spec}` must be `module:function` or `file.py:function`")
    module = _import(place, folder)
    function = getattr(module, name, None)
    if function is None:
        hint = did_you_mean(name, (known for known in vars(module) if not known.startswith("_")))
        raise TaskError(f"`{spec}`: `{place}` has no `{name}`{hint}")
    if not callable(function):
        raise TaskError(f"`{spec}`: `{name}` is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]  # callable, but of unknown signature


def _import(place: str, folder: Path) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = folder / place
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module
    except FileNotFoundError:
        raise TaskError(f"`{folder / place}`: no such file") from None
    except Exception as error:  # whatever the user's module raises
        problem = f"{type(error).__name__}: {error}"
        raise TaskError(f"`{place}` can't be imported: {problem}") from error
