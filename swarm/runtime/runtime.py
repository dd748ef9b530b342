"""What stays warm between runs: engines with their loaded models, and answers of this process."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from swarm.agents.engines import Engine
from swarm.agents.memory import Memory
from swarm.runtime.cache import MemoryCache, Recorder
from swarm.runtime.residency import Residency
from swarm.runtime.scheduler import Scheduler

T = TypeVar("T")


class Runtime:
    """Engines and how many models they may hold. One is shared by all who give none of their own.

    Args:
        engines: used under their names instead of new ones: ``{"scripted": MyEngine()}``.
        memory: what models may take on a device: a number of them, or bytes such as ``"80GiB"``;
            for several devices a table of these (see `swarm.agents.memory.Memory`).
    """

    def __init__(
        self,
        engines: Mapping[str, Engine] | None = None,
        *,
        memory: Memory | Mapping[str, str | int] | str | int = 1,
    ) -> None:
        self.residency = Residency(engines, memory=Memory.parse(memory))
        self._memory = MemoryCache()
        self._shared: WeakKeyDictionary[asyncio.AbstractEventLoop, Scheduler] = WeakKeyDictionary()

    def scheduler(self, recorder: Recorder | None = None, *, spare: bool = True) -> Scheduler:
        """A new scheduler on these engines, for the running event loop; see `Scheduler`."""
        return Scheduler(self.residency, recorder, spare=spare)

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
def _shared_runtime() -> Runtime:
    return Runtime()


def default_runtime(memory: Memory | None = None) -> Runtime:
    """The runtime of everybody who gives none of their own.

    There is one, whatever pools say, since their models share this machine. `memory` is what the
    pool at hand says (`Pool.memory`), and counts from now on.
    """
    runtime = _shared_runtime()
    runtime.residency.memory = memory or Memory.parse(1)
    return runtime


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end: in this thread, or in another where a loop runs here (notebooks).

    Ctrl-C cancels it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1, "swarm") as thread:
        running = thread.submit(copy_context().run, asyncio.run, cancellable())
        try:
            # In slices: a Ctrl-C that comes just before a wait begins does not end it.
            while not wait([running], timeout=0.2).done:
                pass
            return running.result()
        except KeyboardInterrupt:  # which comes to this thread only
            loop, task = begun.result()
            loop.call_soon_threadsafe(task.cancel)
            raise


async def gather(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. The first that fails ends the others, and then its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def iterate(steps: AsyncIterator[T]) -> Iterator[T]:
    """An asynchronous iterator as an ordinary one, on a thread of its own."""
    runner = asyncio.Runner()
    with ThreadPoolExecutor(1, "swarm") as thread:
        try:
            while True:
                try:
                    yield thread.submit(runner.run, _next(steps)).result()
                except StopAsyncIteration:
                    return
        finally:
            thread.submit(runner.close).result()


async def _next(steps: AsyncIterator[T]) -> T:
    return await anext(steps)
