"""How far an evaluation is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from swarm.agents.expert import Expert
from swarm.agents.memory import Memory
from swarm.agents.messages import Response
from swarm.app.terminal import one_line
from swarm.runtime.cache import Answered, Recorder
from swarm.runtime.runtime import Runtime
from swarm.runtime.scheduler import Scheduler
from swarm.store import AnswerRecord, BatchRecord

PAUSE = 10.0
"""Seconds between two lines."""


class Watch(ABC):
    """Is told how many calls of an evaluation are answered. A context manager around it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The evaluation has ended, one way or another."""
        return

    @abstractmethod
    def answered(self, calls: int) -> None:
        """So many more calls are answered."""


class SilentWatch(Watch):
    """Shows nothing."""

    def answered(self, calls: int) -> None: ...


class LineWatch(Watch):
    """A line every `PAUSE` seconds: nothing at all for what is done sooner."""

    def __init__(self, title: str, calls: int | None, file: TextIO | None = None) -> None:
        self._title = title
        self._calls = calls
        self._file = file or sys.stderr
        self._answered = 0
        self._started = self._said = time.monotonic()

    def answered(self, calls: int) -> None:
        self._answered += calls
        now = time.monotonic()
        if now - self._said >= PAUSE:
            self._said = now
            of = "" if self._calls is None else f" of {self._calls:,}"
            done = f"{self._answered:,}{of} calls"
            print(f"{self._title}: {done}, {now - self._started:.0f} s", file=self._file)
            self._file.flush()


class BarWatch(Watch):
    """A live bar that goes away when it is full."""

    def __init__(self, title: str, calls: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("calls"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(title, total=calls)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def answered(self, calls: int) -> None:
        self._bar.advance(self._task, calls)


def watch(title: str, calls: int | None, *, quiet: bool) -> Watch:
    """What to tell of an evaluation with so many `calls`; None: nobody knows before."""
    if quiet:
        return SilentWatch()
    title = one_line(title, 40)
    return BarWatch(title, calls) if sys.stderr.isatty() else LineWatch(title, calls)


class WatchedRuntime(Runtime):
    """A runtime of its own that tells `watch` of every call that is answered."""

    def __init__(self, watch: Watch, memory: Memory | None = None) -> None:
        super().__init__(memory=memory or 1)
        self._watch = watch

    def scheduler(self, recorder: Recorder | None = None, *, spare: bool = True) -> Scheduler:
        return super().scheduler(recorder and _Watched(recorder, self._watch), spare=spare)


class _Watched(Recorder):
    """Counts what another recorder knows and keeps."""

    def __init__(self, recorder: Recorder, watch: Watch) -> None:
        self._recorder = recorder
        self._watch = watch

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        found = self._recorder.known(keys)
        self._watch.answered(sum(key in found for key in keys))
        return found

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        self._recorder.record(batch, experts, answers)
        self._watch.answered(batch.requests)

    def record_all(self, answered: Sequence[Answered]) -> None:
        self._recorder.record_all(answered)
        self._watch.answered(sum(batch.requests for batch, _, _ in answered))
