"""The engines: one file each, behind the contract of `swarm.agents.engines.base`.

To add one, write its file and name it in `ENGINES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swarm.agents.engines.base import Engine
from swarm.imported import class_at

__all__ = ["ENGINES", "Engine", "EngineEntry", "create_engine", "engine_names"]


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine is, known without importing it or the packages it needs."""

    place: str
    """``module:class``."""
    summary: str
    reads_weights: bool
    """Whether `Expert.model` and `Expert.adapter` are weights that must be there before a run."""
    sending: frozenset[str] = frozenset()
    """Those of `Expert.options` that say how it is asked, and so change nothing that it answers."""

    def load(self) -> type[Engine]:
        engine: type[Engine] = class_at(self.place)
        return engine


ENGINES: dict[str, EngineEntry] = {
    "transformers": EngineEntry(
        "swarm.agents.engines.transformers:TransformersEngine",
        "Hugging Face models and LoRA adapters in this process",
        reads_weights=True,
        sending=frozenset({"device"}),
    ),
    "vllm": EngineEntry(
        "swarm.agents.engines.vllm:VllmEngine",
        "vLLM in this process, for GPUs: adapters mixed, bases asleep in host memory",
        reads_weights=True,
        sending=frozenset({"gpu_memory_utilization", "kv_cache", "max_model_len", "max_loras"}),
    ),
    "server": EngineEntry(
        "swarm.agents.engines.server:ServerEngine",
        "OpenAI-compatible endpoints, and hosted models by LiteLLM",
        reads_weights=False,
        sending=frozenset(
            {
                "key",
                "concurrency",
                "requests_per_minute",
                "timeout",
                "deadline",
                "client",
                "determinism",
            }
        ),
    ),
    "recorded": EngineEntry(
        "swarm.agents.engines.recorded:RecordedEngine",
        "what real models once answered to known questions",
        reads_weights=False,
    ),
    "scripted": EngineEntry(
        "swarm.agents.engines.scripted:ScriptedEngine",
        "a function or a table answers; for tests and dry runs",
        reads_weights=False,
    ),
}


def engine_names() -> str:
    return ", ".join(f"`{name}`" for name in ENGINES)


def create_engine(name: str, **options: Any) -> Engine:
    """A new engine; `name` is a key of `ENGINES`."""
    return ENGINES[name].load()(**options)
