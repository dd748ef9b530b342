"""The few shapes that figures are shown in on a terminal: a heading, a table, pairs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarm.app.terminal import plain

_COLOURS = {"done": "green", "failed": "red", "running": "cyan"}
ATTENTION = "yellow"
"""The style of what should be looked at."""


def heading(console: Console, title: str) -> None:
    """A line in bold, after an empty one."""
    console.print()
    console.print(Text(plain(title), "bold"))


def pairs(console: Console, named: Mapping[str, str]) -> None:
    """A line for each name with its text."""
    grid = Table.grid(padding=(0, 3))
    for name, text in named.items():
        grid.add_row(Text(f"  {plain(name)}", "dim"), Text(plain(text)))
    console.print(grid)


def table(*columns: str) -> Table:
    """Columns whose name ends in a colon hold numbers."""
    empty = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=True, header_style="dim")
    for column in columns:
        number = column.endswith(":")
        empty.add_column(column.rstrip(":"), justify="right" if number else "left", no_wrap=number)
    return empty


def status(word: str) -> Text:
    """The status of a run, in its colour."""
    return Text(word, _COLOURS.get(word, ATTENTION))


def score(figure: float | None) -> str:
    """Three digits; a dash for what was not measured."""
    return "–" if figure is None else f"{figure:.3f}"


def count(number: int | None) -> str:
    """With commas; a dash for what was not counted."""
    return "–" if number is None else f"{number:,}"


def when(moment: datetime) -> str:
    """To the minute, where the reader is."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def value(setting: Any) -> str:
    """A setting as it is read: a list with commas, yes or no."""
    if isinstance(setting, list):
        return ", ".join(map(str, setting))
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    return "–" if setting is None else str(setting)
