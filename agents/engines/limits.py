"""How many requests may be on their way to one endpoint: learnt from how it answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Throttle:
    """Lets requests go one by one, in the order they came; all on one event loop.

    At most `concurrency` are on their way at once. The number adapts: it is halved when the
    endpoint says that it was too many, and grows by about one a round while it is not (additive
    increase, multiplicative decrease, as in TCP). With `per_minute` they also leave at even
    distances, so that no minute sees more.
    """

    def __init__(self, concurrency: int, per_minute: float | None = None) -> None:
        self.concurrency = concurrency
        self.allowed = float(concurrency)
        """How many may be on their way now; at least 1."""
        self.in_flight = 0
        self._distance = 60.0 / per_minute if per_minute else 0.0
        self._opens = 0.0
        """Time of the event loop before which none leaves."""
        self._refused_at = -1.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Waits until one more may leave; it is on its way until the end. Gives the time it left.

        Whoever has it says how it went by `accepted` or `refused`.
        """
        await self._enter()
        try:
            loop = asyncio.get_running_loop()
            # In a loop: it may be put off, or others may leave first.
            while (now := loop.time()) < self._opens:  # noqa: ASYNC110
                await asyncio.sleep(self._opens - now)
            self._opens = now + self._distance
            yield now
        finally:
            self._leave()

    def accepted(self) -> None:
        """The endpoint took a request."""
        self.allowed = min(self.concurrency, self.allowed + 1 / self.allowed)

    def refused(self, left: float) -> None:
        """The endpoint refused, as one too many, a request that left at this time."""
        # Those that were on their way together are refused together: that is one refusal.
        if left > self._refused_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._refused_at = asyncio.get_running_loop().time()

    def pause(self, seconds: float) -> None:
        """None leaves for so long."""
        self._opens = max(self._opens, asyncio.get_running_loop().time() + seconds)

    async def _enter(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was let in at the very moment
                self._leave()
            raise

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < int(self.allowed):
            place = self._waiting.popleft()
            if not place.done():  # else who waited was cancelled
                self.in_flight += 1
                place.set_result(None)
