"""What is shown while a job runs: a bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TextIO


class Progress(ABC):
    """Is told how a job goes. A context manager around the job."""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The job has ended, one way or another."""

    @abstractmethod
    def start(self, title: str, iterations: int, done: int) -> None:
        """The job begins with `done` of its iterations behind it."""

    @abstractmethod
    def calls(self, asked: int) -> None:
        """So many calls have been made since the job began."""

    @abstractmethod
    def iteration(self, number: int, best: float, mean: float) -> None:
        """Iteration `number` (from 1) is over: best score so far, mean score of this one."""


class Silent(Progress):
    """Shows nothing."""

    def start(self, title: str, iterations: int, done: int) -> None: ...

    def calls(self, asked: int) -> None: ...

    def iteration(self, number: int, best: float, mean: float) -> None: ...


class Lines(Progress):
    """One line an iteration, for logs."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stderr
        self._iterations = 0
        self._asked = 0
        self._started = time.monotonic()

    def _say(self, text: str) -> None:
        print(text, file=self._file, flush=True)

    def start(self, title: str, iterations: int, done: int) -> None:
        self._iterations, self._started = iterations, time.monotonic()
        goes_on = f", going on after iteration {done}" if done else ""
        self._say(f"{_shown(title)}: {iterations} iterations{goes_on}")

    def calls(self, asked: int) -> None:
        self._asked = asked

    def iteration(self, number: int, best: float, mean: float) -> None:
        seconds = time.monotonic() - self._started
        self._say(
            f"iteration {number}/{self._iterations}: best {best:.3f}, mean {mean:.3f}, "
            f"{self._asked} calls, {seconds:.0f} s"
        )


class Bar(Progress):
    """A live bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]} · mean {task.fields[mean]}"),
            TextColumn("[dim]{task.fields[asked]} calls"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", start=False, best="–", mean="–", asked=0, visible=False)

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

    def start(self, title: str, iterations: int, done: int) -> None:
        self._bar.update(
            self._task, description=_shown(title), total=iterations, completed=done, visible=True
        )
        self._bar.start_task(self._task)

    def calls(self, asked: int) -> None:
        self._bar.update(self._task, asked=f"{asked:,}")

    def iteration(self, number: int, best: float, mean: float) -> None:
        self._bar.update(self._task, completed=number, best=f"{best:.3f}", mean=f"{mean:.3f}")


def _shown(title: str) -> str:
    """Titles hold names from files, which must not steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in title)


def default_progress(*, quiet: bool = False) -> Progress:
    """A bar where stderr is a terminal, else lines; nothing if `quiet`."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()
