"""Expertise trees: questions are parted where different experts are better, and nowhere else.

Expertise trees (arXiv 2305.01063): a decision tree over contexts whose leaves hold a model of the
experts each; a leaf is parted where the two sides' models together do better than the one (section
4). Here the context is the principal components of the question's vector, and a leaf's model the
mean score of each expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded

LEAF = -1
"""In place of a component: the node is not parted."""


@dataclass(kw_only=True, eq=False)
class ExpertiseTree(Embedded):
    """A cut is chosen on one half of the known questions and kept if it helps on the other, too."""

    name: ClassVar[str] = "expertise_tree"
    axes: ClassVar = {"leaf_scores": 1, "leaf_costs": 1}

    depth: int = 6
    smallest: int = 30
    """Questions that each side of a cut has at least, in each half."""
    size: int = 24
    """Principal components that can be cut."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        from sklearn.decomposition import PCA

        vectors = self.vectors(outcomes.questions)
        size = min(self.size, *vectors.shape)
        fitted = PCA(size, random_state=self.seed % 2**32).fit(vectors)
        self.learned["centre"], self.learned["components"] = fitted.mean_, fitted.components_
        context = self._context(outcomes.questions)
        half = rng.permutation(len(outcomes)) % 2 == 0
        nodes: list[list[float]] = []  # component, cut, node below the cut, node above it
        scores: list[Floats] = []
        costs: list[Floats] = []

        def grow(rows: NDArray[np.intp], depth: int) -> int:
            node = len(nodes)
            nodes.append([LEAF, 0.0, 0, 0])
            scores.append(outcomes.scores[rows].mean(axis=0))
            costs.append(outcomes.costs[rows].mean(axis=0))
            cut = self._cut(context, outcomes.scores, rows, half) if depth else None
            if cut is not None:
                below = context[rows, cut[0]] <= cut[1]
                left, right = grow(rows[below], depth - 1), grow(rows[~below], depth - 1)
                nodes[node] = [cut[0], cut[1], left, right]
            return node

        grow(np.arange(len(outcomes)), self.depth)
        self.learned["nodes"] = np.array(nodes)
        self.learned["leaf_scores"], self.learned["leaf_costs"] = np.array(scores), np.array(costs)

    def _cut(
        self, context: Floats, scores: Floats, rows: NDArray[np.intp], half: NDArray[np.bool_]
    ) -> tuple[int, float] | None:
        """The component and value that part `rows` best, if that helps the other half of them."""
        grown, checked = rows[half[rows]], rows[~half[rows]]
        n, least = len(grown), self.smallest
        if n < 2 * least:
            return None
        best, found = 0.0, None
        for component in range(context.shape[1]):
            values = context[grown, component]
            order = np.argsort(values, kind="stable")
            below = np.cumsum(scores[grown[order]], axis=0)
            # What the best expert of each side scores, in sum, if the first i + 1 are below.
            gain = below.max(axis=1) + (below[-1] - below).max(axis=1) - below[-1].max()
            gain = gain[least - 1 : n - least]
            i = int(np.argmax(gain))
            if gain[i] > best + 1e-9:
                best = float(gain[i])
                at = least - 1 + i
                found = component, float((values[order[at]] + values[order[at + 1]]) / 2)
        if found is None:
            return None
        component, value = found
        sides = context[:, component] <= value
        whole = scores[grown].sum(axis=0).argmax()
        gained = 0.0
        for side in (sides, ~sides):
            inner = checked[side[checked]]
            if len(inner) < least:
                return None
            chosen = scores[grown[side[grown]]].sum(axis=0).argmax()
            gained += float((scores[inner, chosen] - scores[inner, whole]).sum())
        return found if gained > 0 else None

    def _context(self, questions: Sequence[str]) -> Floats:
        centred = self.vectors(questions) - self.learned["centre"]
        read: Floats = (centred @ self.learned["components"].T).astype(np.float64)
        return read

    def _leaves(self, questions: Sequence[str]) -> NDArray[np.intp]:
        context = self._context(questions)
        at = np.zeros(len(context), dtype=np.intp)
        component, cut, below, above = self.learned["nodes"].T
        for _ in range(self.depth):
            inner = np.flatnonzero(component[at] != LEAF)
            node = at[inner]
            values = context[inner, component[node].astype(np.intp)]
            at[inner] = np.where(values <= cut[node], below[node], above[node]).astype(np.intp)
        return at

    def estimates(self, questions: Sequence[str]) -> Floats:
        scores: Floats = self.learned["leaf_scores"][self._leaves(questions)]
        return scores

    def cost_estimates(self, questions: Sequence[str]) -> Floats:
        costs: Floats = self.learned["leaf_costs"][self._leaves(questions)]
        return costs
