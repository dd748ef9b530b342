"""No schedule of these graphs can do with fewer loads: a lower bound, for any room.

Let a schedule be anything: any order, questions one by one or together, any eviction. If it answers
all questions, it answers one question of every graph, so one question is enough. Call a load of a
base *extra* if the base was loaded before; a schedule has (bases) + (extra loads) loads.

Take a subset S of the bases, and forget all agents of others (those in between are remembered: who
comes after whom). The schedule, restricted to loads of S, is a schedule of that smaller problem,
and never has more than the room loaded. So its extra loads of bases in S are at least x(S), the
fewest that the smaller problem can be solved with. That is found by exhaustive search: all states
with no extra load to come, then all with one eviction of a base that is still needed (each such
eviction is an extra load), and so on; where the search is given up, what was exhausted still
counts.

Many subsets together: the extra loads e of each base satisfy sum over S of e >= x(S) for each S, so
the least sum of e (a linear program) bounds the extra loads of every schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from swarm.graphs import AgentGraph

Masks = npt.NDArray[np.uint16]


def lower_bound(
    graphs: Sequence[AgentGraph], room: int, *, subsets: int, size: int, states: int, seed: int = 0
) -> tuple[int, int]:
    """Loads, and how many of the subsets' searches were exhaustive.

    Every expert is a base of its own.

    Args:
        size: bases of a subset; `subsets` of them are drawn, each base in about as many.
        states: more in one layer end a search.
    """
    from scipy.optimize import linprog

    bases = sorted({expert for graph in graphs for expert in graph.experts})
    if len(bases) <= room:
        return len(bases), 0
    size = min(size, len(bases))
    rng = np.random.default_rng(seed)
    rows, least, exact = [], [], 0
    used = np.zeros(len(bases))
    for _ in range(subsets):
        chosen = np.argsort(used + 0.5 * rng.random(len(bases)))[:size]
        used[chosen] += 1
        extra, whole = extra_loads(project(graphs, [bases[b] for b in chosen]), room, states)
        exact += whole
        rows.append([-1.0 if b in chosen else 0.0 for b in range(len(bases))])
        least.append(-float(extra))
    found = linprog(np.ones(len(bases)), A_ub=np.array(rows), b_ub=np.array(least))
    return len(bases) + int(np.ceil(found.fun - 1e-6)), exact


def project(graphs: Sequence[AgentGraph], bases: Sequence[str]) -> Masks:
    """(graphs, bases): which of these bases come before each, as masks. A base that a graph lacks
    is answered from the beginning, which the mask of the base itself says."""
    place = {base: k for k, base in enumerate(bases)}
    before = np.zeros((len(graphs), len(bases)), np.uint16)
    for g, graph in enumerate(graphs):
        if len(set(graph.experts)) != len(graph.experts):
            raise ValueError("every expert must play one agent of a graph at most")
        above: dict[str, int] = {}
        for agent in graph.order:
            mask = 0
            for heard in graph.predecessors(agent.name):
                mask |= above[heard.name]
                if heard.expert in place:
                    mask |= 1 << place[heard.expert]
            above[agent.name] = mask
            if agent.expert in place:
                before[g, place[agent.expert]] = mask
        for base, k in place.items():
            if base not in graph.experts:
                before[g, k] = 1 << k
    return before


def extra_loads(before: Masks, room: int, states: int) -> tuple[int, bool]:
    """At least so many loads of bases that were loaded before; whether as many are enough."""
    graphs, n = before.shape
    everything = np.uint16((1 << n) - 1)
    absent = np.array(
        [sum(int(before[g, k]) & 1 << k for k in range(n)) for g in range(graphs)], np.uint16
    )
    masks, here = absent[None].copy(), np.zeros(1, np.uint16)
    extra = 0
    while True:
        later: list[tuple[Masks, Masks]] = []
        while len(masks):
            if (masks == everything).all(1).any():
                return extra, True
            if len(masks) > states:
                return extra, False
            free, paid = _loads(masks, here, before, room)
            later += [_unique(*paid)] if paid else []
            masks, here = _unique(*free) if free else (masks[:0], here[:0])
        masks = np.concatenate([m for m, _ in later])
        masks, here = _unique(masks, np.concatenate([h for _, h in later]))
        extra += 1


def _loads(
    masks: Masks, here: Masks, before: Masks, room: int
) -> tuple[tuple[Masks, Masks] | None, tuple[Masks, Masks] | None]:
    """States one load further: those that evict nothing that is needed, and those that do."""
    n = before.shape[1]
    everything = np.uint16((1 << n) - 1)
    unneeded = here & ~np.bitwise_or.reduce(everything & ~masks, axis=1)
    free, paid = [], []
    for base in range(n):
        bit = np.uint16(1 << base)
        waits = ((before[None, :, base] & ~masks) == 0) & ((masks & bit) == 0)
        some = waits.any(1) & ((here & bit) == 0)
        m, h, gone = masks[some], here[some], unneeded[some]
        full = np.bitwise_count(h) >= room
        easy = ~full | (gone != 0)
        lowest = gone & (~gone + np.uint16(1))
        then = np.where(full, h & ~lowest, h)[easy] | bit
        free.append((_serve(m[easy], then, before), then))
        m, h = m[~easy], h[~easy]
        for victim in range(n):
            has = (h >> victim & 1) == 1
            then = (h[has] & ~np.uint16(1 << victim)) | bit
            paid.append((_serve(m[has], then, before), then))
    return _joined(free), _joined(paid)


def _joined(parts: Sequence[tuple[Masks, Masks]]) -> tuple[Masks, Masks] | None:
    some = [(m, h) for m, h in parts if len(m)]
    if not some:
        return None
    return np.concatenate([m for m, _ in some]), np.concatenate([h for _, h in some])


def _serve(masks: Masks, here: Masks, before: Masks) -> Masks:
    """Answers all that loaded bases can: waiting with it spares no load."""
    while True:
        old = masks
        for base in range(before.shape[1]):
            bit = np.uint16(1 << base)
            loaded = ((here & bit) != 0)[:, None]
            masks = np.where(loaded & ((before[None, :, base] & ~masks) == 0), masks | bit, masks)
        if (masks == old).all():
            return masks


def _unique(masks: Masks, here: Masks) -> tuple[Masks, Masks]:
    rows = np.ascontiguousarray(np.concatenate([masks, here[:, None]], axis=1))
    packed = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    rows = np.unique(packed).view(np.uint16).reshape(-1, rows.shape[1])
    return rows[:, :-1].copy(), rows[:, -1].copy()
