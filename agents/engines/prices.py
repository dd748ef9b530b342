"""What hosted models cost and hold: the list that comes with LiteLLM, read without importing it."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

LIST = "model_prices_and_context_window_backup.json"


def listed(model: str) -> tuple[float, float] | None:
    """USD per million tokens read and written by LiteLLM's name of a model; None: not listed."""
    try:
        found = entry(model) or {}
        read, written = found["input_cost_per_token"], found["output_cost_per_token"]
        return round(read * 1e6, 9), round(written * 1e6, 9)
    except (KeyError, TypeError):  # priced by the second or the picture, or only in tiers
        return None


def listed_context(model: str) -> int | None:
    """How many tokens a model can read, by the same list; None: it is not said."""
    found = (entry(model) or {}).get("max_input_tokens")
    return found if isinstance(found, int) else None


def entry(model: str) -> dict[str, Any] | None:
    """All that the list says of a model, by LiteLLM's name of it; None: it is not listed."""
    host, _, name = model.partition("/")
    found = _list().get(model) or _list().get(name, {})
    return found if model in _list() or found.get("litellm_provider") == host else None


@functools.cache
def _list() -> dict[str, dict[str, Any]]:
    found = importlib.util.find_spec("litellm")
    for folder in (found and found.submodule_search_locations) or ():
        if (file := Path(folder) / LIST).is_file():
            entries: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
            return entries
    return {}
