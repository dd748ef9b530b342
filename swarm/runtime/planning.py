"""Which base to load next, and which to evict for it: a beam search over all that will be asked.

Where the models that are wanted do not all fit, the order in which they are loaded decides how
often they are. With room for one it is a shortest common supersequence of the running graphs, with
room for more it is that and paging at once. The first is NP-hard (Maier, J. ACM 25, 1978), so this
searches.

A state says which items are answered and which bases are loaded; all that loaded bases can answer
is answered, since waiting with it spares no load. A step loads a base that somebody waits for and
evicts those that are needed latest. At each number of loads the best few states are kept. What one
wave after the other would do is one of the candidates, so a plan never takes more loads than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarm.agents.memory import Room
from swarm.runtime.agenda import Agenda, bits

AHEAD = 63
"""So many items of a graph are looked ahead at: as many as a mask has bits for."""
NARROW, WIDE = 8, 32
"""States that are kept: usually, and where a load takes long enough to think about it."""
LONG = 1 << 20
"""Bytes of a model whose load takes longer than thinking about it: any real one's, some 50 ms and
more, where a plan takes about 10 ms a load."""
EFFORT = 100_000
"""Items (states × graphs × agents) that may be looked at for one load. With very many graphs fewer
states are kept for it, and at last the plan is made without looking at all of them."""
VICTIMS = 3
"""So many choices of whom to evict are tried for each load."""
NEVER = 1 << 20
"""Distance of a base that nobody will ask."""

Ints = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class Model(NamedTuple):
    """What the planner has to know of a base."""

    device: str = ""
    size: int | None = None
    """Bytes on the device. 0: it takes no room, and asking it costs no load. None: unknown."""


class Step(NamedTuple):
    """One load."""

    base: str
    evict: tuple[str, ...]
    """What is unloaded first, to make room."""


def plan(
    running: Sequence[tuple[Agenda, int]],
    loaded: Sequence[str],
    models: Mapping[str, Model],
    rooms: Mapping[str, Room],
) -> list[Step]:
    """The loads by which all that is running comes to its end.

    The same for the same arguments.

    Args:
        running: where graphs stand: agenda, and mask of what is answered. Each once.
        loaded: the bases that are loaded, least recently used first.
        models: of every base that is loaded or will be asked.
        rooms: of every device that a model takes room on.
    """
    problem = Problem(running, loaded, models, rooms)
    searches = WEIGHTS if problem.long else WEIGHTS[:1]
    candidates = [problem.search(weights) for weights in searches] + [problem.by_waves()]
    return min(candidates, key=problem.taken)


class Weights(NamedTuple):
    """What makes a state good, beside what it has cost: less of these."""

    chain: float
    """Of each graph: the longest chain of base changes that is left."""
    height: float
    """Of each item that is left: the longest chain of base changes from it to the end."""
    bases: float
    """Of each base that is left and not loaded: 1."""


WEIGHTS = (Weights(0.0, 0.2, 3.0), Weights(0.3, 0.1, 1.0))
"""Of one search, or where a load takes long of two, the better of which counts. Found on random
graphs such as those of `benchmarks/residency.py`."""


class Problem:
    """All that is running as arrays: G graphs of at most N items, B bases, D devices."""

    def __init__(
        self,
        running: Sequence[tuple[Agenda, int]],
        loaded: Sequence[str],
        models: Mapping[str, Model],
        rooms: Mapping[str, Room],
    ) -> None:
        self._running = running
        kinds = [(agenda, done) for agenda, done in running if done != agenda.all]
        # The same order in every process: names decide, where a search is undecided.
        wanted = {agenda.bases[i] for agenda, done in kinds for i in agenda.missing(done)}
        self.names = sorted(wanted.union(loaded))
        self.index = {name: b for b, name in enumerate(self.names)}
        self._loaded = [self.index[name] for name in loaded]
        devices = sorted({models[name].device for name in self.names})
        self._device = np.array(
            [devices.index(models[name].device) for name in self.names], np.int64
        )
        sizes = [models[name].size for name in self.names]
        self._free = np.array([size == 0 for size in sizes], np.bool_)
        self._bytes = np.array([size or 0 for size in sizes], np.float64)
        there = [rooms.get(device, Room()) for device in devices]
        self._most = np.array([_limit(room.models) for room in there], np.float64)
        self._most_bytes = np.array([_limit(room.bytes) for room in there], np.float64)
        paid = self._bytes[~self._free]
        known = bool(len(paid)) and bool(paid.all())
        self.cost = np.where(self._free, 0.0, self._bytes / paid.mean() if known else 1.0)
        """Of loading each base, 1 on average."""
        self.long = bool(self._bytes.max(initial=0) >= LONG)
        self._arrange(kinds)

    def taken(self, steps: Sequence[Step]) -> float:
        """What these loads cost."""
        return float(sum(self.cost[self.index[step.base]] for step in steps))

    def _arrange(self, kinds: Sequence[tuple[Agenda, int]]) -> None:
        left = [[i for i in agenda.order if not done >> i & 1][:AHEAD] for agenda, done in kinds]
        graphs, items = len(kinds), max(map(len, left), default=0)
        self._base = np.zeros((graphs, items), np.int64)
        self._before: Masks = np.zeros((graphs, items), np.uint64)
        self._ancestors: Masks = np.zeros((graphs, items), np.uint64)
        self._height = np.zeros((graphs, items))
        self._start: Masks = np.zeros(graphs, np.uint64)
        self._bit: Masks = np.uint64(1) << np.arange(items, dtype=np.uint64)
        for g, ((agenda, _), order) in enumerate(zip(kinds, left, strict=True)):
            place = {i: k for k, i in enumerate(order)}
            before, ancestors = [0] * len(order), [0] * len(order)
            height = [1.0] * len(order)
            for k, i in enumerate(order):
                self._base[g, k] = self.index[agenda.bases[i]]
                for j in agenda.items[i].after:
                    if (p := place.get(j)) is not None:
                        before[k] |= 1 << p
                        ancestors[k] |= 1 << p | ancestors[p]
            for k in reversed(range(len(order))):
                for p in bits(before[k]):
                    change = self.cost[self._base[g, k]] * (self._base[g, p] != self._base[g, k])
                    height[p] = max(height[p], height[k] + change)
            self._before[g, : len(order)] = before
            self._ancestors[g, : len(order)] = ancestors
            self._height[g, : len(order)] = height
            self._start[g] = sum(1 << k for k in range(len(order), items))  # as if answered

    # States: masks of what is answered (S, G), and what is loaded (S, B).

    def _first(self) -> tuple[Masks, Bools]:
        here: Bools = self._free.copy()
        here[self._loaded] = True
        return self._serve(self._start[None], here[None]), here[None]

    def _serve(self, masks: Masks, here: Bools) -> Masks:
        """Answers all that loaded bases can: items are in an order in which they can be asked."""
        for k in range(len(self._bit)):
            ready = (self._before[:, k] & ~masks) == 0
            masks = masks | np.where(ready & here[:, self._base[:, k]], self._bit[k], np.uint64(0))
        return masks

    def _over(self, here: Bools, base: Ints) -> Bools:
        """Whether more is loaded on the device of `base` than it has room for."""
        device = self._device[base]
        taken = here & ~self._free & (self._device[None] == device[:, None])
        found: Bools = (taken.sum(1) > self._most[device]) | (
            (taken * self._bytes).sum(1) > self._most_bytes[device]
        )
        return found

    def _distances(self, masks: Masks, left: Bools) -> Ints:
        """(S, B): how many items must be answered before a base is wanted next."""
        far = np.full((len(masks), len(self.names)), NEVER, np.int64)
        between = np.bitwise_count(self._ancestors[None] & ~masks[:, :, None]).astype(np.int64)
        s, g, k = np.nonzero(left)
        np.minimum.at(far, (s, self._base[g, k]), between[s, g, k])
        return far

    def _load(self, here: Bools, base: Ints, far: Ints, choice: int) -> tuple[Bools, Bools]:
        """What is loaded afterwards, and whether there was such a choice: evicts what is wanted
        last, but begins with the one after `choice` others."""
        rows = np.arange(len(base))
        here = here.copy()
        here[rows, base] = True
        chosen = np.ones(len(base), np.bool_)
        over = self._over(here, base)
        if choice:
            chosen &= over
        skip = choice
        while over.any():
            may_go = here & ~self._free & (self._device[None] == self._device[base][:, None])
            may_go[rows, base] = False
            value = np.where(may_go, far, -1)
            order = np.argsort(-value, axis=1, kind="stable")
            victim = order[:, min(skip, order.shape[1] - 1)]
            there = may_go[rows, victim]
            if skip:  # nothing to choose between where the first is never wanted again
                chosen &= there & (value[rows, order[:, 0]] < NEVER)
            here[rows[over & there], victim[over & there]] = False
            over &= there & self._over(here, base)
            skip = 0
        return here, chosen

    def search(self, weights: Weights) -> list[Step]:
        """Loads by which all is answered, as few as a beam search finds."""
        masks, here = self._first()
        width = self._width()
        cost = np.zeros(1)
        history: list[tuple[Ints, Ints]] = []
        """Of each round: parent and base of the states kept."""
        loaded: list[Bools] = [here]
        best: tuple[float, int, int] | None = None
        while True:
            left: Bools = (masks[:, :, None] & self._bit) == 0
            done = ~left.any(axis=(1, 2))
            if done.any():
                k = int(np.argmin(np.where(done, cost, np.inf)))
                if best is None or cost[k] < best[0]:
                    best = float(cost[k]), len(history), k
            going: Bools = np.logical_not(done) & (cost < (np.inf if best is None else best[0]))
            if not going.any():
                assert best is not None
                return self._trace(best[1], best[2], history, loaded)
            ready = left & ((self._before[None] & ~masks[:, :, None]) == 0) & going[:, None, None]
            wanted = np.zeros_like(here)
            s, g, k_ = np.nonzero(ready)
            wanted[s, self._base[g, k_]] = True
            parent, base = np.nonzero(wanted & ~here)
            far = self._distances(masks, left)
            tried = []
            for choice in range(VICTIMS if width > 1 else 1):
                after, chosen = self._load(here[parent], base, far[parent], choice)
                tried.append((parent[chosen], base[chosen], after[chosen]))
                if not chosen.any():
                    break
            parent, base, after = map(np.concatenate, zip(*tried, strict=True))
            then = self._serve(masks[parent], after)
            spent = cost[parent] + self.cost[base]
            kept = self._best(then, after, spent, weights, width)
            masks, here, cost = then[kept], after[kept], spent[kept]
            history.append((parent[kept], base[kept]))
            loaded.append(here)

    def _width(self) -> int:
        per_state = max(1, self._base.size * VICTIMS * min(len(self.names), 16) // 4)
        return max(1, min(WIDE if self.long else NARROW, EFFORT // per_state))

    def _best(
        self, masks: Masks, here: Bools, cost: npt.NDArray[np.float64], weights: Weights, width: int
    ) -> list[int]:
        """The `width` best states, each once; names decide between equals."""
        left: Bools = (masks[:, :, None] & self._bit) == 0
        score = cost.copy()
        if weights.chain:
            score += weights.chain * np.where(left, self._height, 0).max(2).sum(1)
        if weights.height:
            score += weights.height * (left * self._height).sum((1, 2))
        wanted = np.zeros_like(here)
        s, g, k = np.nonzero(left)
        wanted[s, self._base[g, k]] = True
        score += weights.bases * ((wanted & ~here) * self.cost).sum(1)
        kept: list[int] = []
        seen: set[bytes] = set()
        for i in np.argsort(score, kind="stable").tolist():
            state = masks[i].tobytes() + here[i].tobytes()
            if state not in seen:
                seen.add(state)
                kept.append(i)
                if len(kept) == width:
                    break
        return kept

    def _trace(
        self, rounds: int, k: int, history: Sequence[tuple[Ints, Ints]], loaded: Sequence[Bools]
    ) -> list[Step]:
        steps: list[Step] = []
        for r in reversed(range(rounds)):
            parent, base = int(history[r][0][k]), int(history[r][1][k])
            gone = np.nonzero(loaded[r][parent] & ~loaded[r + 1][k])[0]
            steps.append(Step(self.names[base], tuple(self.names[v] for v in gone)))
            k = parent
        return steps[::-1]

    def by_waves(self) -> list[Step]:
        """As if everything were waited for after each wave: every base that is wanted is visited
        once, those that are loaded first, then by name."""
        used = [b for b in self._loaded if not self._free[b]]
        visits: list[int] = []
        going = [(agenda, done) for agenda, done in self._running if done != agenda.all]
        while going:
            ready = [agenda.ready(done) for agenda, done in going]
            wanted = {
                self.index[agenda.bases[i]]
                for (agenda, _), some in zip(going, ready, strict=True)
                for i in bits(some)
            }
            for b in sorted(wanted, key=lambda b: (b not in used, b)):
                if not self._free[b]:
                    visits.append(b)
                    used = [*(other for other in used if other != b), b]
                    while self._is_over(used, b):  # what was used longest ago goes
                        used.remove(self._beside(used, b)[0])
            going = [
                (agenda, done | some)
                for (agenda, done), some in zip(going, ready, strict=True)
                if done | some != agenda.all
            ]
        return self._follow(visits)

    def _follow(self, visits: Sequence[int]) -> list[Step]:
        """The loads of visiting bases in this order. Those for which there is nothing to do are
        left out, and what is evicted is what is visited next the latest (Belady, 1966)."""
        here = [b for b in self._loaded if not self._free[b]]
        free = {self.names[b] for b in np.nonzero(self._free)[0]}
        going = list(self._running)
        steps: list[Step] = []
        for n, b in enumerate(visits):
            loaded = free.union(self.names[other] for other in here)
            going = [(agenda, agenda.served(done, loaded)) for agenda, done in going]
            name = self.names[b]
            if b in here or not any(
                agenda.bases[i] == name for agenda, done in going for i in bits(agenda.ready(done))
            ):
                continue
            after = {other: k for k, other in reversed(list(enumerate(visits[n + 1 :])))}
            here.append(b)
            gone = []
            while self._is_over(here, b):
                victim = max(self._beside(here, b), key=lambda other: after.get(other, NEVER))
                here.remove(victim)
                gone.append(self.names[victim])
            steps.append(Step(name, tuple(gone)))
        return steps

    def _is_over(self, here: Sequence[int], base: int) -> bool:
        row = np.zeros((1, len(self.names)), np.bool_)
        row[0, here] = True
        return bool(self._over(row, np.array([base]))[0])

    def _beside(self, here: Sequence[int], base: int) -> list[int]:
        """The others on the device of `base`."""
        return [b for b in here if b != base and self._device[b] == self._device[base]]


def _limit(limit: int | None) -> float:
    return float("inf") if limit is None else float(limit)
