"""What is shown on a terminal: nothing that a model or a file wrote may steer it.

Prompts, responses, names and errors come from outside. They may hold ANSI escapes, which move the
cursor or hide text, and what looks like rich's markup: the first are shown as Python writes them,
the second is never read as such.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# C0 and C1 but tab and new-line, invisible direction marks (which reorder what is read), lone
# surrogates (which no terminal can show).
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

PIPED_WIDTH = 200
"""Columns where there is no terminal whose width would matter."""


def plain(text: str) -> str:
    r"""`text` with control characters spelt out: ``\x1b`` for an escape."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def one_line(text: str, limit: int | None = None) -> str:
    """`plain` text on one line, cut to `limit` characters."""
    text = " ".join(plain(text).split())
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def console(*, stderr: bool = False) -> Console:
    """Where tables and text go. Strings are printed as they are, never read as markup."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    return Console(
        file=file,
        width=None if file.isatty() else PIPED_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def say(text: str) -> None:
    """A line on stderr, where no table is in the way of what reads stdout."""
    sys.stderr.write(text + "\n")
