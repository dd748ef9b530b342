"""Answers that are already known, by content address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from swarm.agents.expert import Expert
from swarm.agents.messages import Response
from swarm.store.records import AnswerRecord, BatchRecord


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


class MemoryCache(Recorder):
    """Answers of this process, kept in a dictionary."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Response] = {}

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        return {key: self._answers[key] for key in keys if key in self._answers}

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self._answers.update((answer.key, answer.response) for answer in answers)
