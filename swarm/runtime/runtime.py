"""What stays warm between runs: engines with their loaded models, and answers of this process."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from swarm.agents.engines import Engine
from swarm.runtime.cache import MemoryCache, Recorder
from swarm.runtime.residency import Residency
from swarm.runtime.scheduler import Scheduler

T = TypeVar("T")


class Runtime:
    """Engines and how many models they may hold. One is shared by all who give none of their own.

    Args:
        engines: used under their names instead of new ones: ``{"scripted": MyEngine()}``.
        resident: how many base models may be loaded at once.
    """

    def __init__(self, engines: Mapping[str, Engine] | None = None, *, resident: int = 1) -> None:
        self.residency = Residency(engines, limit=resident)
        self._memory = MemoryCache()
        self._shared: WeakKeyDictionary[asyncio.AbstractEventLoop, Scheduler] = WeakKeyDictionary()

    def scheduler(self, recorder: Recorder | None = None) -> Scheduler:
        """A new scheduler on these engines, for the running event loop."""
        return Scheduler(self.residency, recorder)

    def shared_scheduler(self) -> Scheduler:
        """The running loop's scheduler for calls that belong to no recorded run."""
        loop = asyncio.get_running_loop()
        if loop not in self._shared:
            self._shared[loop] = self.scheduler(self._memory)
        return self._shared[loop]

    def close(self) -> None:
        """Unloads all models. The next run loads them again."""
        run_sync(self.residency.close())


@functools.cache
def default_runtime() -> Runtime:
    """The runtime of everybody who gives none of their own."""
    return Runtime()


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end: in this thread, or in another where a loop runs here (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def drive() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=drive, name="swarm")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
