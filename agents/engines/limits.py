"""How many requests may be on their way to one endpoint: learnt from how it answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Throttle:
    """Lets requests go one by one, in the order they came, from whichever threads' event loops.

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
        """Time (`time.monotonic`) before which none leaves."""
        self._refused_at = -1.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._told: set[asyncio.Future[None]] = set()
        """Those on other loops who were let in and do not know it yet."""
        self._lock = threading.RLock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Waits until one more may leave; it is on its way until the end. Gives the time it left.

        Whoever has it says how it went by `accepted` or `refused`.
        """
        await self._enter()
        try:
            # In a loop: it may be put off, or others may leave first.
            while (wait := self._wait()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            yield time.monotonic()
        finally:
            self._leave()

    def accepted(self) -> None:
        """The endpoint took a request."""
        with self._lock:
            self.allowed = min(self.concurrency, self.allowed + 1 / self.allowed)

    def refused(self, left: float) -> None:
        """The endpoint refused, as one too many, a request that left at this time."""
        with self._lock:
            # Those that were on their way together are refused together: that is one refusal.
            if left > self._refused_at:
                self.allowed = max(1.0, self.allowed / 2)
                self._refused_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """None leaves for so long."""
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)

    def _wait(self) -> float:
        """Seconds until one may leave; if that is none, it has left."""
        with self._lock:
            now = time.monotonic()
            if now < self._opens:
                return self._opens - now
            self._opens = now + self._distance
            return 0.0

    async def _enter(self) -> None:
        place = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append(place)
            self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was let in at the very moment
                self._leave()
            raise

    def _leave(self) -> None:
        with self._lock:
            self.in_flight -= 1
            self._admit()

    def _admit(self) -> None:
        for place in [place for place in self._told if place.get_loop().is_closed()]:
            self._told.discard(place)  # it will never know
            self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.allowed):
            place = self._waiting.popleft()
            if place.done():  # who waited was cancelled
                continue
            loop = place.get_loop()
            if loop is asyncio.get_running_loop():
                place.set_result(None)
            else:
                try:
                    loop.call_soon_threadsafe(self._tell, place)
                except RuntimeError:  # the loop has ended, and who waited with it
                    continue
                self._told.add(place)
            self.in_flight += 1

    def _tell(self, place: asyncio.Future[None]) -> None:
        """On the loop of who waits, who may have been cancelled meanwhile."""
        with self._lock:
            if place not in self._told:
                return
            self._told.discard(place)
            if not place.done():
                place.set_result(None)
            else:
                self._leave()
