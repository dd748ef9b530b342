"""Answers that are already known, by content address."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from swarm.agents.expert import Expert
from swarm.agents.messages import Request, Response
from swarm.store.records import AnswerRecord, BatchRecord

Answered = tuple[BatchRecord, Sequence[Expert], Sequence[AnswerRecord]]
"""A batch, the experts it was asked of, and what was answered."""


class Recorder(ABC):
    """Where a scheduler looks answers up, and keeps what engines answered.

    Called from the scheduler's event loop only, once a wave, not once a request.
    """

    @abstractmethod
    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        """The answers among `keys` that are known."""

    @abstractmethod
    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        """Keeps a batch and its answers. When this returns they are safe from a crash."""

    def record_all(self, answered: Sequence[Answered]) -> None:
        """Keeps several, all of them or none."""
        for batch, experts, answers in answered:
            self.record(batch, experts, answers)

    @asynccontextmanager
    async def asking(self, requests: Sequence[Request]) -> AsyncIterator[int]:
        """Around asking an engine for a batch: how many of it, the first ones, may be asked now.

        At least one: this waits until one may be, or raises what ends the work.
        """
        yield len(requests)


class MemoryCache(Recorder):
    """Answers of this process, as many as there is room for: who serves for ever must not grow.

    May be used from several threads.
    """

    ENTRY = 500
    """What an answer takes beside its text, in bytes."""

    def __init__(self, room: int = 1 << 28) -> None:
        """`room`: about so many bytes; what was not wanted for longest is forgotten."""
        self._room = room
        self._answers: OrderedDict[bytes, Response] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        with self._lock:
            found = {key: self._answers[key] for key in keys if key in self._answers}
            for key in found:
                self._answers.move_to_end(key)
        return found

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self.keep((answer.key, answer.response) for answer in answers)

    def keep(self, answers: Iterable[tuple[bytes, Response]]) -> None:
        """Keeps answers, and forgets others for them."""
        with self._lock:
            for key, response in answers:
                if key not in self._answers:
                    self._room -= self.ENTRY + len(response.text)
                    self._answers[key] = response
            while self._room < 0:
                _, response = self._answers.popitem(last=False)
                self._room += self.ENTRY + len(response.text)
