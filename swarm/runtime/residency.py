"""Which base models are loaded, and on which engine."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swarm.agents.engines import Engine, create_engine
from swarm.agents.expert import Expert


class Loaded(NamedTuple):
    """An engine with the base that was asked for."""

    engine: Engine
    fresh: bool
    """Whether the base had to be loaded now."""
    seconds: float
    """How long that took, evictions included."""


class Residency:
    """Keeps engines warm, and at most `limit` bases loaded.

    Engines outlive schedulers: what is loaded for one evaluation is there for the next.
    """

    def __init__(self, engines: Mapping[str, Engine] | None = None, *, limit: int = 1) -> None:
        """`engines` are used under their names instead of new ones."""
        self.limit = limit
        self._engines: dict[str, Engine] = dict(engines or {})
        self._loaded: OrderedDict[str, Engine] = OrderedDict()
        """Base → engine, least recently used first."""

    def engine(self, name: str) -> Engine:
        """The engine called `name`, made when it is first wanted."""
        if name not in self._engines:
            self._engines[name] = create_engine(name)
        return self._engines[name]

    @property
    def loaded(self) -> tuple[str, ...]:
        """The bases that are loaded, least recently used first."""
        return tuple(self._loaded)

    async def acquire(self, base: str, experts: Sequence[Expert]) -> Loaded:
        """Loads `base` if it is not, evicting what was used longest ago if there is no room.

        Raises:
            EngineError: it can't be loaded.
        """
        engine = self.engine(experts[0].engine)
        if not engine.resident:
            return Loaded(engine, False, 0.0)
        started = time.perf_counter()
        fresh = base not in self._loaded
        while fresh and len(self._loaded) >= self.limit:
            victim, holder = self._loaded.popitem(last=False)
            await holder.unload(victim)
        await engine.load(base, experts)
        self._loaded[base] = engine
        self._loaded.move_to_end(base)
        return Loaded(engine, fresh, time.perf_counter() - started if fresh else 0.0)

    async def close(self) -> None:
        """Unloads everything. The next `acquire` loads again."""
        self._loaded.clear()
        for engine in self._engines.values():
            await engine.close()
