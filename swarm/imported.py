"""Classes that registries name by their place, so that no entry is imported before it is wanted."""

from __future__ import annotations

import importlib
from typing import Any


def class_at(place: str) -> Any:
    """The class at ``module:name``, its module imported if it was not yet."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
