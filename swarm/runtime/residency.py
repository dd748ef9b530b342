"""Which base models are loaded, and on which engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from swarm.agents.engines import Engine, create_engine
from swarm.agents.expert import Expert
from swarm.errors import InputError


class Loaded(NamedTuple):
    """What it took to have a base ready."""

    fresh: bool
    """Whether the base had to be loaded now."""
    seconds: float
    """How long that took, evictions included."""


class Residency:
    """Keeps engines warm, and at most `limit` bases loaded.

    Engines outlive schedulers: what is loaded for one evaluation is there for the next. Several
    schedulers may share one residency, also on event loops of different threads: they take turns.
    """

    def __init__(self, engines: Mapping[str, Engine] | None = None, *, limit: int = 1) -> None:
        """`engines` are used under their names instead of new ones."""
        if limit < 1:
            raise InputError(
                f"`resident` is {limit}: at least 1 model must be allowed to be loaded"
            )
        self.limit = limit
        self._engines: dict[str, Engine] = dict(engines or {})
        self._loaded: OrderedDict[str, Engine] = OrderedDict()
        """Base → engine, least recently used first."""
        self._turn = threading.Lock()

    def engine(self, name: str) -> Engine:
        """The engine called `name`, made when it is first wanted."""
        if name not in self._engines:
            self._engines[name] = create_engine(name)
        return self._engines[name]

    @property
    def loaded(self) -> tuple[str, ...]:
        """The bases that are loaded, least recently used first."""
        return tuple(self._loaded)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[Engine]:
        """The engine called `name`; if it is resident, nobody else uses a resident engine inside.

        So what is acquired stays loaded until the end of the turn, unless more is acquired in it.
        """
        engine = self.engine(name)
        if not engine.resident:
            yield engine
            return
        # Who has the turn may be on another thread's event loop, where no asyncio lock reaches.
        while not self._turn.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        try:
            yield engine
        finally:
            self._turn.release()

    async def acquire(self, base: str, experts: Sequence[Expert]) -> Loaded:
        """Loads `base` if it is not, evicting what was used longest ago if there is no room.

        To be called in the engine's turn.

        Raises:
            EngineError: it can't be loaded.
        """
        engine = self.engine(experts[0].engine)
        if not engine.resident:
            return Loaded(False, 0.0)
        started = time.perf_counter()
        fresh = base not in self._loaded
        while fresh and len(self._loaded) >= self.limit:
            victim, holder = next(iter(self._loaded.items()))
            await holder.unload(victim)
            del self._loaded[victim]
        try:
            await engine.load(base, experts)
        except BaseException:
            if fresh:
                await engine.unload(base)  # the part that was loaded takes room, too
            raise
        self._loaded[base] = engine
        self._loaded.move_to_end(base)
        return Loaded(fresh, time.perf_counter() - started if fresh else 0.0)

    async def close(self) -> None:
        """Unloads everything. The next `acquire` loads again."""
        self._loaded.clear()
        for engine in self._engines.values():
            await engine.close()
