"""What `swarm plot` does: every picture that a job has data for, as PNG and SVG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from swarm.analysis.job import JobHistory
from swarm.app.documents import Document
from swarm.app.terminal import plain
from swarm.errors import InputError
from swarm.plots import PLOTS
from swarm.plots.style import save

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Drawn:
    """The pictures of one job."""

    run: int
    files: tuple[Path, ...]
    left_out: dict[str, str]
    """Picture → why there is none."""

    def document(self) -> Document:
        files = [str(file) for file in self.files]
        return {"run": self.run, "files": files, "left_out": self.left_out}

    def show(self, console: Console) -> None:
        for file in self.files:
            console.print(Text(plain(str(file))), soft_wrap=True)
        for name, why in self.left_out.items():
            console.print(Text(f"no {name}: {plain(why)}", "dim"), soft_wrap=True)


def draw(store: str, run: int, folder: Path) -> Drawn:
    """Writes the pictures of a job into `folder`, which is made if need be.

    Raises:
        InputError: there is no such job, or the folder can't be written to.
        MissingPackageError: matplotlib is not installed.
    """
    job = JobHistory.load(store, run)
    files: list[Path] = []
    left_out: dict[str, str] = {}
    for name, plot in PLOTS.items():
        try:
            figure = plot(job)
        except InputError as error:
            left_out[name] = str(error)
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in FORMATS:
                path = folder / f"{name}.{suffix}"
                save(figure, path)
                files.append(path)
        except OSError as error:
            raise InputError(
                f"`--out {folder}`: can't be written to ({error.strerror}): give another folder"
            ) from None
    return Drawn(run, tuple(files), left_out)
