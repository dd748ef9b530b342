"""What `swarm plot` does: every picture that a run has data for, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from swarm.analysis.job import JobHistory
from swarm.app.documents import Document
from swarm.app.terminal import plain
from swarm.errors import InputError
from swarm.plots import PLOTS, RUN_PLOTS
from swarm.plots.style import save
from swarm.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Drawn:
    """The pictures of one run."""

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
        names: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            names.setdefault(why, []).append(name)
        for why, without in names.items():
            text = f"no {', '.join(without)}: {plain(why)}"
            console.print(Text(text, "dim"), soft_wrap=True)


def draw(store: str, run: int, folder: Path) -> Drawn:
    """Writes the pictures of a run into `folder`, which is made if need be.

    Raises:
        InputError: there is no such run or nothing to draw of it, or the folder can't be written
            to.
        MissingPackageError: matplotlib is not installed.
    """
    with Store.open(store, create=False) as opened:
        view, batches = opened.run(run), opened.batches(run)
    pictures: dict[str, Callable[[], Figure]] = {
        name: partial(plot, view, batches) for name, plot in RUN_PLOTS.items()
    }
    files: list[Path] = []
    left_out: dict[str, str] = {}
    try:
        job = JobHistory.load(store, run)
        pictures = {name: partial(plot, job) for name, plot in PLOTS.items()} | pictures
    except InputError as error:
        left_out = dict.fromkeys(PLOTS, str(error))
    for name, draw_one in pictures.items():
        try:
            figure = draw_one()
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
    if not files:
        raise InputError(f"there is nothing to draw: {'; '.join(dict.fromkeys(left_out.values()))}")
    return Drawn(run, tuple(files), left_out)
