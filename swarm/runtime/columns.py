"""Columns of prompts that wait, and the groups of them that want the same of one expert."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.agents.expert import Expert
from swarm.agents.messages import Messages, Response
from swarm.errors import EngineError

if TYPE_CHECKING:
    from swarm.runtime.scheduler import Participant

Outcome = Response | EngineError
Say = Callable[[str], None]
"""Is told pieces of an answer as they are written."""


class Answers(NamedTuple):
    """What a column was answered: three lists as long as the column."""

    outcomes: list[Outcome]
    keys: list[bytes] | None
    """Content addresses; None where nothing is recorded."""
    cached: list[bool]
    """Whether no request was made for it: it was known, or another had asked the same."""


@dataclass(eq=False)
class Column:
    """A column of prompts for one expert, and who waits for its answers."""

    expert: Expert
    prompts: Sequence[Messages]
    draw: int
    participant: Participant | None
    item: int
    future: asyncio.Future[Answers]
    say: Say | None = None

    def settle(self, answers: Answers) -> None:
        if self.participant is not None:
            self.participant._answer(self.item)
        self.future.set_result(answers)


class Group:
    """Columns that want the same of the same expert: every prompt once."""

    def __init__(self, column: Column, *, spare: bool = True) -> None:
        """For columns like this one. Without `spare`, what is wanted twice is asked twice."""
        self.expert = column.expert
        self.draw = column.draw
        self.prompts: list[Messages] = []
        self.keys: list[bytes] | None = None
        """Content addresses of `prompts`; None where nothing is recorded."""
        self.outcomes: list[Outcome | None] = []
        """Of `prompts`; None: not known yet."""
        self.asked: set[int] = set()
        """Positions for which a request was made."""
        self._columns: list[tuple[Column, list[int]]] = []
        """With the positions of their prompts."""
        self._index: dict[Any, int] = {}
        self._spare = spare

    def add(self, column: Column) -> Added:
        """Takes a column in."""
        index, before = self._index, len(self.prompts)
        if self._spare:
            places = [index.setdefault(prompt, len(index)) for prompt in column.prompts]
            self.prompts += islice(index, before, None)
        else:
            places = list(range(before, before + len(column.prompts)))
            self.prompts += column.prompts
        self._columns.append((column, places))
        new = range(before, len(self.prompts))
        self.outcomes += [None] * len(new)
        return Added(self, new, places)

    @property
    def columns(self) -> list[Column]:
        return [column for column, _ in self._columns]

    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not all(column.future.done() for column, _ in self._columns)

    def missing(self) -> list[int]:
        """Positions that somebody waits for whose outcome is not known yet."""
        waiting = [places for column, places in self._columns if not column.future.done()]
        wanted = waiting[0] if len(waiting) == 1 else chain.from_iterable(waiting)
        return [i for i in dict.fromkeys(wanted) if self.outcomes[i] is None]

    def settle(self, *, known: bool = False) -> int:
        """Answers every column, or those of which all is known. The first that wanted a prompt
        counts as the one who asked; returns how many others wanted the same."""
        asked, fresh, shared = self.asked, set(self.asked), 0
        left: list[tuple[Column, list[int]]] = []
        for column, places in self._columns:
            outcomes: list[Any] = [self.outcomes[i] for i in places]
            if column.future.done():  # whoever waited has been cancelled
                continue
            if known and None in outcomes:
                left.append((column, places))
                continue
            keys = None if self.keys is None else [self.keys[i] for i in places]
            cached = []
            for i in places:
                cached.append(i not in fresh)
                shared += i not in fresh and i in asked
                fresh.discard(i)
            column.settle(Answers(outcomes, keys, cached))
        self._columns = left
        return shared


class Added(NamedTuple):
    """A column that a group has taken in."""

    group: Group
    new: range
    """The positions of prompts that nobody had wanted before."""
    places: Sequence[int]
    """The positions of all of its prompts."""
