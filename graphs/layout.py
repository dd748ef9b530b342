"""Where agents and lines go in a picture: a small layered layout (after Sugiyama et al., 1981).

Agents stand in columns (or rows), each as late as its readers allow, so that lines are short. A
response that is read further on travels on a *track* through the columns between; all readers of
one agent branch off the same track, which keeps dense graphs legible.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from swarm.graphs.graph import Agent, AgentGraph

Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]
"""A cubic Bézier curve."""

HEAD = 8.0
"""Length and width of an arrowhead."""

_MARGIN = 10.0
_SWEEPS = 12


class Box(NamedTuple):
    """An agent's place; `x`, `y` is the upper left corner."""

    agent: Agent
    x: float
    y: float
    width: float
    height: float


class Layout(NamedTuple):
    """A picture in units of one CSS pixel, y downwards."""

    width: float
    height: float
    boxes: list[Box]
    curves: list[Curve]
    heads: list[list[Point]]
    """Arrowheads: triangles, one at each agent that reads others."""


def place(graph: AgentGraph, width: float, height: float, *, down: bool) -> Layout:
    """Lay out boxes of one size, with responses flowing to the right, or down."""
    columns = _columns(graph)
    _reorder(columns)
    along, across = (height, width) if down else (width, height)
    step = along + (44.0 if down else 56.0)
    _settle(columns, across)

    top = min(column[0].at - column[0].half(across) for column in columns) - _MARGIN
    bottom = max(column[-1].at + column[-1].half(across) for column in columns) + _MARGIN

    def point(forward: float, sideways: float) -> Point:
        return (sideways - top, forward + _MARGIN) if down else (forward + _MARGIN, sideways - top)

    boxes: list[Box] = []
    curves: list[Curve] = []
    heads: list[list[Point]] = []
    for k, column in enumerate(columns):
        start = k * step
        for slot in column:
            if slot.is_agent:
                x, y = point(start, slot.at)
                corner = (x - width / 2, y) if down else (x, y - height / 2)
                boxes.append(Box(slot.agent, *corner, width, height))
                if slot.before:
                    base = start - HEAD
                    heads.append(
                        [
                            point(start, slot.at),
                            point(base, slot.at - HEAD / 2),
                            point(base, slot.at + HEAD / 2),
                        ]
                    )
            else:
                curves.append(_straight(point(start, slot.at), point(start + along, slot.at)))
            for reader in slot.after:
                begin = start + along
                # Under the arrowhead, so that the line's blunt end doesn't show at its tip.
                end = start + step - (HEAD - 1.0 if reader.is_agent else 0.0)
                middle = (begin + start + step) / 2
                curves.append(
                    (
                        point(begin, slot.at),
                        point(middle, slot.at),
                        point(middle, reader.at),
                        point(end, reader.at),
                    )
                )
    extent = point((len(columns) - 1) * step + along + _MARGIN, bottom)
    return Layout(extent[0], extent[1], boxes, curves, heads)


class _Slot:
    """A place in a column: an agent's box, or the track of its response on the way to others."""

    def __init__(self, agent: Agent, *, is_agent: bool) -> None:
        self.agent = agent
        self.is_agent = is_agent
        self.before: list[_Slot] = []
        self.after: list[_Slot] = []
        self.rank = 0.0
        """Index within the column."""
        self.at = 0.0
        """The middle, across the flow."""

    def half(self, across: float) -> float:
        return across / 2 if self.is_agent else 0.0


def _columns(graph: AgentGraph) -> list[list[_Slot]]:
    slots = {agent.name: _Slot(agent, is_agent=True) for agent in graph.agents}
    columns: list[list[_Slot]] = [[] for _ in range(graph.depth)]
    late: dict[str, int] = {}
    for agent in reversed(graph.order):
        readers = [reader.name for reader in graph.successors(agent.name)]
        late[agent.name] = column = min((late[name] for name in readers), default=graph.depth) - 1
        slot = slots[agent.name]
        columns[column].append(slot)
        for k in range(column + 1, max((late[name] for name in readers), default=0) + 1):
            for name in readers:
                if late[name] == k:
                    _connect(slot, slots[name])
            if any(late[name] > k for name in readers):
                track = _Slot(agent, is_agent=False)
                columns[k].append(track)
                _connect(slot, track)
                slot = track
    for content in columns:
        content.sort(key=lambda slot: graph.position(slot.agent.name))
    return columns


def _connect(slot: _Slot, reader: _Slot) -> None:
    slot.after.append(reader)
    reader.before.append(slot)


def _reorder(columns: list[list[_Slot]]) -> None:
    """Few crossings: each column sorted by the mean rank of its neighbours, back and forth."""
    for column in columns:
        _rank(column)
    best, fewest = [list(column) for column in columns], None
    for sweep in range(_SWEEPS):
        backwards = sweep % 2 == 0
        for column in reversed(columns) if backwards else columns:
            column.sort(key=lambda slot: _mean_rank(slot.after if backwards else slot.before, slot))
            _rank(column)
        crossings = sum(_crossings(column) for column in columns)
        if fewest is None or crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
        if not crossings:
            break
    for column, order in zip(columns, best, strict=True):
        column[:] = order


def _rank(column: list[_Slot]) -> None:
    for rank, slot in enumerate(column):
        slot.rank = rank


def _mean_rank(neighbours: list[_Slot], slot: _Slot) -> float:
    if not neighbours:
        return slot.rank
    return sum(neighbour.rank for neighbour in neighbours) / len(neighbours)


def _crossings(column: list[_Slot]) -> int:
    """Crossings between this column and the next: pairs of lines whose ends swap sides."""
    ends = [sorted(reader.rank for reader in slot.after) for slot in column]
    return sum(
        end < earlier
        for i, following in enumerate(ends)
        for end in following
        for previous in ends[:i]
        for earlier in previous
    )


def _settle(columns: list[list[_Slot]], across: float) -> None:
    """Everybody as near to the middle of its neighbours as the order in its column allows."""
    for column in columns:
        gaps = _gaps(column, across)
        for slot, gap in zip(column, gaps, strict=True):
            slot.at = gap - gaps[-1] / 2
    for sweep in range(2 * _SWEEPS):
        backwards = sweep % 2 == 0
        for column in reversed(columns) if backwards else columns:
            wishes = [_mean_at(slot.after if backwards else slot.before, slot) for slot in column]
            gaps = _gaps(column, across)
            free = [wish - gap for wish, gap in zip(wishes, gaps, strict=True)]
            for slot, at, gap in zip(column, _isotonic(free), gaps, strict=True):
                slot.at = at + gap


def _gaps(column: list[_Slot], across: float) -> list[float]:
    """The least distance of each slot's middle from the first one's."""
    gaps = [0.0]
    for slot, following in pairwise(column):
        space = 18.0 if slot.is_agent or following.is_agent else 12.0
        gaps.append(gaps[-1] + slot.half(across) + space + following.half(across))
    return gaps


def _mean_at(neighbours: list[_Slot], slot: _Slot) -> float:
    if not neighbours:
        return slot.at
    return sum(neighbour.at for neighbour in neighbours) / len(neighbours)


def _isotonic(values: Iterable[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` in least squares: pool adjacent violators."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            earlier, size = pools.pop()
            mean, count = (earlier * size + mean * count) / (size + count), size + count
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


def _straight(a: Point, b: Point) -> Curve:
    return (a, a, b, b)
