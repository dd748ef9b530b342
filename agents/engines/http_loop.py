"""The one event loop that HTTP clients are used on, whichever loop their callers are on.

Clients keep connections and tasks of their own by event loop, and callers come from many, some of
which end at once. And a limit of an endpoint is one for all who ask it.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
P = TypeVar("P")


async def on_its_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` there, and ends it if this is cancelled."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, http_loop()))


async def pieces_from_its_loop(
    work: Callable[[Callable[[P], None]], Coroutine[Any, Any, T]],
) -> AsyncIterator[P | T]:
    """Runs `work(say)` there; gives what it says as it says it, and what it returns last.

    It is ended when this is closed.
    """
    here = asyncio.get_running_loop()
    said: asyncio.Queue[tuple[P] | None] = asyncio.Queue()

    def tell(item: tuple[P] | None) -> None:
        with suppress(RuntimeError):  # whoever listened is gone, and the loop with him
            here.call_soon_threadsafe(said.put_nowait, item)

    running = asyncio.run_coroutine_threadsafe(work(lambda piece: tell((piece,))), http_loop())
    running.add_done_callback(lambda _: tell(None))
    try:
        while (item := await said.get()) is not None:
            yield item[0]
        yield running.result()
    finally:
        running.cancel()


_starting = threading.Lock()


def http_loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _started()


@functools.cache
def _started() -> asyncio.AbstractEventLoop:
    """It lives as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    atexit.register(_close, loop)
    return loop


def _close(loop: asyncio.AbstractEventLoop) -> None:
    direct = sys.modules.get("swarm.agents.engines.direct")
    if direct is not None:
        with suppress(Late, RuntimeError):
            asyncio.run_coroutine_threadsafe(direct.close_session(), loop).result(1)
