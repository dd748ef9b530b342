"""The one event loop that LiteLLM is used on, and answers in pieces from a task.

LiteLLM keeps connections and tasks of its own by event loop, and callers come from many, some of
which end at once.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
P = TypeVar("P")


async def on_its_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` there, and ends it if this is cancelled."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, http_loop()))


async def in_pieces(
    work: Callable[[Callable[[P], None]], Coroutine[Any, Any, T]], *, here: bool
) -> AsyncGenerator[P | T, None]:
    """Runs `work(say)`; gives what it says as it says it, and what it returns last.

    It is ended when this is closed. It runs on this loop if `here`, else on LiteLLM's.
    """
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[tuple[P] | None] = asyncio.Queue()

    def tell(item: tuple[P] | None) -> None:
        with suppress(RuntimeError):  # whoever listened is gone, and the loop with him
            loop.call_soon_threadsafe(said.put_nowait, item)

    working = work(lambda piece: tell((piece,)))
    running = loop.create_task(working if here else on_its_loop(working))
    running.add_done_callback(lambda _: tell(None))
    try:
        while (item := await said.get()) is not None:
            yield item[0]
        yield await running
    finally:
        running.cancel()
        await asyncio.wait([running])


_starting = threading.Lock()


def http_loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _started()


@functools.cache
def _started() -> asyncio.AbstractEventLoop:
    """It lives as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="litellm", daemon=True).start()
    return loop
