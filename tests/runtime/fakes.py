"""Engines that do what they should not, and keep a record of what was done with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from swarm.agents.engines import Engine
from swarm.agents.expert import Expert
from swarm.agents.messages import Message, Request, Response, Usage
from swarm.errors import EngineError, OutOfMemoryError, RequestError

FAULTS = {
    "load": "can't be loaded",
    "plan": "must name each",
    "raise": "ZeroDivisionError: odd",
    "error": "on fire",
    "count": "answers to",
    "kind": "an answer must be",
    "none": "TypeError",
    "cancel": "it cancelled its own work",
}
"""What a base may be called to misbehave, and what those who ask it are told."""


def prompt(text: object) -> tuple[Message, ...]:
    return (Message("user", str(text)),)


def answer(request: Request) -> Response | RequestError:
    """What every well-behaved fake says to a request; prompts that begin with `bad` fail."""
    text = request.messages[-1].content
    if text.startswith("bad"):
        return RequestError(f"won't answer {text}")
    words = f"{request.expert.name} to {text}, draw {request.draw}"
    return Response(words, Usage(len(text.split()), len(words.split())))


class Fake(Engine):
    """Bases are called after what goes wrong with them (`FAULTS`), or anything else."""

    def __init__(self, *, limit: int = 1, pause: int = 0, batch: int = 1000) -> None:
        self.limit = limit
        self.pause = pause
        """How many turns of the event loop everything takes."""
        self.batch = batch
        self.resident_now: set[str] = set()
        self.loads: list[str] = []
        self.asked: Counter[bytes] = Counter()
        self.batches: list[list[Request]] = []
        self._busy = False

    async def _wait(self) -> None:
        for _ in range(self.pause):
            await asyncio.sleep(0)

    async def _alone(self) -> None:
        assert not self._busy, "two calls at once"
        self._busy = True
        try:
            await self._wait()
        finally:
            self._busy = False

    async def load(self, base: str, experts: Sequence[Expert]) -> None:
        assert all(expert.base == base for expert in experts)
        self.loads += [base] * (base not in self.resident_now)
        self.resident_now.add(base)
        assert len(self.resident_now) <= self.limit, "more loaded than the limit"
        await self._alone()
        if base.endswith(":load"):
            raise OutOfMemoryError(f"{base} can't be loaded")

    async def unload(self, base: str) -> None:
        await self._alone()
        self.resident_now.discard(base)

    async def plan(self, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
        await self._wait()
        order = range(len(requests))[::-1]
        if requests[0].expert.model == "plan":
            return [order[1:]]
        return [order[i : i + self.batch] for i in range(0, len(order), self.batch)]

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        base = requests[0].expert.base
        assert all(request.expert.base == base for request in requests)
        if self.resident:
            assert base in self.resident_now, "asked without being loaded"
        await (self._alone() if self.resident else self._wait())
        self.batches.append(list(requests))
        self.asked.update(request.key() for request in requests)
        match requests[0].expert.model:
            case "raise":
                raise ZeroDivisionError("odd")
            case "error":
                raise EngineError(f"{base} is on fire")
            case "count":
                return [answer(requests[0])] * (len(requests) + 1)
            case "kind":
                return ["just a string"] * len(requests)  # type: ignore[list-item]
            case "none":
                return None  # type: ignore[return-value]
            case "cancel":
                raise asyncio.CancelledError
        return [answer(request) for request in requests]


class FakeHTTP(Fake):
    """Asked at once, by anybody."""

    resident = False
    column = 3
