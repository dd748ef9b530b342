"""What is left of predecessors' responses in a prompt that would be too long: their ends.

The oldest response is cut first, down to nothing, then the next. Its end is what is kept: models
reason first and conclude last, and a reader needs the conclusion most. A cut is made between words,
so that no number loses its first digits unseen, and leaves `MARK` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MARK = "[…]"
"""Stands in a prompt where something was cut."""
WORD = 40
"""Characters after which what has no space in it counts as no word, and is cut anywhere."""


class Cut(NamedTuple):
    """One predecessor's response of which only the end is in a prompt."""

    response: int
    """Which, counted from 1 as prompts do."""
    kept: int
    """How many characters of its end are left."""
    of: int
    """How many it had (new-lines made spaces, where the prompt's style does that)."""


_SPACE = re.compile(r"\s")

Cuts = tuple[Cut, ...]
"""How one prompt was shortened, by `Cut.response`; empty: it was not."""


def most(responses: Sequence[str]) -> int:
    """How many characters can be cut of `responses`."""
    return sum(len(text) for text in responses if len(text) > len(MARK))


def cut(responses: Sequence[str], oldest_first: Iterable[int], amount: int) -> Cuts:
    """How to take `amount` characters off `responses`, or a few more to end between words.

    Responses no longer than `MARK` stay: cutting them gains nothing.

    Args:
        oldest_first: positions in `responses`.
    """
    found = []
    for k in oldest_first:
        if amount <= 0:
            break
        text = responses[k]
        if len(text) > len(MARK):
            begin = _word_after(text, min(amount, len(text)))
            found.append(Cut(k + 1, len(text) - begin, len(text)))
            amount -= len(text)
    return tuple(sorted(found))


def apply(responses: Sequence[str], cuts: Cuts) -> list[str]:
    """`responses` as they are in the shortened prompt. What does not fit them is passed over."""
    left = list(responses)
    for number, kept, _ in cuts:
        if number <= len(left) and kept < len(left[number - 1]):
            left[number - 1] = _end(left[number - 1], kept)
    return left


def write(cuts: Cuts) -> str:
    """As it is stored: ``1: 0 of 512, 2: 37 of 80``."""
    return ", ".join(f"{number}: {kept} of {of}" for number, kept, of in cuts)


def read(text: str) -> Cuts:
    """The inverse of `write`; `ValueError` for anything else."""
    cuts = []
    for part in text.split(", "):
        found = re.fullmatch(r"([1-9]\d*): (\d+) of (\d+)", part, re.ASCII)
        if found is None:
            raise ValueError(f"`{part}` is not a cut as in `1: 0 of 512`")
        cuts.append(Cut(*map(int, found.groups())))
    return tuple(cuts)


def _word_after(text: str, position: int) -> int:
    """Where the next word begins, at `position` or after it; the end where there is none."""
    if not text[position - 1].isspace():
        space = _SPACE.search(text, position, position + WORD)
        if space is not None:
            position = space.end()
        elif len(text) <= position + WORD:
            return len(text)
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _end(text: str, kept: int) -> str:
    """A space after the mark says that what follows is a whole word."""
    if kept == 0:
        return MARK
    begin = len(text) - kept
    return f"{MARK} {text[begin:]}" if text[begin - 1].isspace() else MARK + text[begin:]
