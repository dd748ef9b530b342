"""What a running graph will ask, and after which answers: its agents' experts as a DAG."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from swarm.agents.expert import Expert


class Item(NamedTuple):
    """One column that will be asked."""

    expert: Expert
    after: tuple[int, ...] = ()
    """The items whose answers it needs: positions in the agenda."""


class Agenda:
    """The items of one graph. Made once a graph; runs of it differ in what is answered.

    Sets of items are bit masks: item i is ``1 << i``.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)
        self.all = (1 << len(self.items)) - 1
        self.bases = tuple(item.expert.base for item in self.items)
        self.before = tuple(_mask(item.after) for item in self.items)
        """Of each item: those it comes after."""
        self._served: dict[tuple[int, frozenset[str]], int] = {}

    @cached_property
    def models(self) -> frozenset[tuple[str, str | None]]:
        """What has to be loaded: bases with their overlays."""
        return frozenset((item.expert.base, item.expert.overlay) for item in self.items)

    @cached_property
    def followers(self) -> tuple[tuple[int, ...], ...]:
        """Of each item: those that come after it."""
        found: list[list[int]] = [[] for _ in self.items]
        for i, item in enumerate(self.items):
            for j in item.after:
                found[j].append(i)
        return tuple(map(tuple, found))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The items in an order in which they can be asked."""
        done, order = 0, list[int]()
        while done != self.all:
            ready = self.ready(done)
            if not ready:
                raise ValueError("the items wait for one another: an agenda must be acyclic")
            for i in bits(ready):
                order.append(i)
                done |= 1 << i
        return tuple(order)

    def ready(self, done: int) -> int:
        """The items that can be asked when `done` are answered."""
        ready = 0
        for i, before in enumerate(self.before):
            if not done >> i & 1 and not before & ~done:
                ready |= 1 << i
        return ready

    def served(self, done: int, bases: Collection[str]) -> int:
        """What is answered in the end, from `done` on, if only these bases can be asked."""
        mine = frozenset(bases).intersection(self.bases)
        key = done, mine
        if key not in self._served:
            if len(self._served) > 4096:  # who serves for ever must not grow
                self._served.clear()
            for i in self.order:
                if self.bases[i] in mine and not done >> i & 1 and not self.before[i] & ~done:
                    done |= 1 << i
            self._served[key] = done
        return self._served[key]

    def missing(self, done: int) -> Iterator[int]:
        """The items that are not answered yet."""
        return bits(self.all & ~done)


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _mask(positions: Sequence[int]) -> int:
    mask = 0
    for i in positions:
        mask |= 1 << i
    return mask
